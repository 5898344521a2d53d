//! What a consumer's command is held to, whichever it is.

use std::{collections::BTreeMap, path::Path, process::Command};

use ecr_emulator::Reason;
use test_support::{
    files::{overwrite, replace},
    harness::DEADLINE,
    iam::{allow_all_but, allow_what_we_ship},
    wait_for,
};

use crate::{
    HOSTS,
    setting::{Pull, Setting},
};

/// How a pull without credentials is refused: skopeo 1.9 then sends an empty user name and password.
const NO_CREDENTIALS: [Reason; 2] = [Reason::NoCredentials, Reason::NotAws];

impl Setting {
    /// The promise: `command` is refused without credentials, admitted with the sidecar's, refused once these
    /// are revoked, and admitted again after the next refresh.
    pub(crate) fn check(&self, command: impl Fn(&Pull<'_>) -> Command) {
        self.check_with(&self.config(), &command);
        self.check_needs(&["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], command);
    }

    /// `command` is refused when one of these actions is taken out of the policy, and for that action.
    pub(crate) fn check_needs(&self, actions: &[&str], command: impl Fn(&Pull<'_>) -> Command) {
        for action in actions {
            allow_all_but(&self.harness.emulator, action);
            let (succeeded, said) = self.run(HOSTS[0], &self.config(), &command);
            assert!(!succeeded, "without {action}: {said}");
            let refusals = self.harness.emulator.refusals();
            let last = refusals.last().expect("a refusal");
            assert_eq!(last.reason, Reason::NotAllowed((*action).to_owned()), "{said}");
        }
        allow_what_we_ship(&self.harness.emulator);
    }

    /// The same by way of the credential helper, which reads the file of the sidecar.
    pub(crate) fn check_helper(&self, command: impl Fn(&Pull<'_>) -> Command) {
        self.check_with(&self.helped_config(), |pull| {
            let mut command = command(pull);
            self.help(&mut command);
            command
        });
    }

    pub(crate) fn check_with(&self, config: &Path, command: impl Fn(&Pull<'_>) -> Command) {
        let nothing = tempfile::tempdir().unwrap();
        for host in HOSTS {
            self.refused(host, nothing.path(), &NO_CREDENTIALS, &command);
        }
        let before = HOSTS.map(|host| self.pull(host, config, &command));

        self.harness.emulator.revoke_tokens();
        for host in HOSTS {
            self.refused(host, config, &[Reason::RevokedToken], &command);
        }
        self.rotate();
        for (host, before) in HOSTS.into_iter().zip(before) {
            let after = self.pull(host, config, &command);
            assert!(after > before, "{host}: token {after} after the rotation, token {before} before it");
        }
    }

    /// The promise: an old token in an entry for the repositories in `scope` has `command` refused, whatever the entry
    /// of the host says, unless a sidecar manages the file.
    pub(crate) fn check_old_entries(&self, scope: &str, command: impl Fn(&Pull<'_>) -> Command) {
        let old = self.auths();
        self.harness.emulator.revoke_tokens();
        self.rotate();
        let mut entries = self.auths();
        for host in HOSTS {
            entries.insert(format!("{host}/{scope}"), old[host].clone());
        }
        let entries: BTreeMap<_, _> =
            entries.iter().map(|(key, auth)| (key, serde_json::json!({ "auth": auth }))).collect();
        let config = serde_json::json!({ "auths": entries }).to_string();

        let unkept = tempfile::tempdir().unwrap();
        overwrite(&unkept.path().join("config.json"), &config);
        for host in HOSTS {
            self.refused(host, unkept.path(), &[Reason::RevokedToken], &command);
        }
        replace(&self.harness.file(), &config);
        wait_for("the entries of the hosts alone", DEADLINE, || {
            self.auths().keys().eq(old.keys()).then_some(())
        });
        for host in HOSTS {
            self.pull(host, &self.config(), &command);
        }
    }
}
