//! The command line: commands, flags and their help.
//!
//! Every command shows examples, and the parser takes each of them (`examples`).

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{examples, kubelet_provider::RoleRules};
use crate::{
    cli::status::Format,
    config::{
        Flags,
        setting::{self, Setting},
    },
    doctor::{Consumer, Puller},
    output::secret_settings::{NamespaceName, ObjectName},
    pull::ImageRef,
    registry::RegistryHost,
    units::parse_duration,
};

/// Keeps Amazon ECR credentials fresh where the main container reads them.
#[derive(Debug, Parser)]
#[command(name = "ecr-sidecar", version = env!("BUILD_VERSION"), after_help = examples::ALL)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) flags: Flags,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(setting::ALL.map(|Setting { flag, variable, value_name, help, default }| {
            let help = format!("{help} [env: {variable}] [default: {default}]");
            Arg::new(*flag).long(*flag).global(true).value_name(*value_name).help(help)
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |setting: &'static Setting| {
            Some((setting.flag, matches.get_one::<String>(setting.flag)?.clone()))
        };
        Ok(Self(setting::ALL.into_iter().filter_map(value).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Keep every output fresh until SIGTERM (the default)
    #[command(after_help = examples::RUN)]
    Run,
    /// Refresh once, write every output, then exit
    #[command(after_help = examples::ONCE)]
    Once {
        /// Give up after this time
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Query the health of the running sidecar, as an exec probe
    #[command(after_help = examples::HEALTH)]
    Health {
        /// The probe
        #[arg(value_enum, value_name = "PROBE", default_value_t = Question::Live)]
        question: Question,
    },
    /// Wait until a running sidecar is ready
    #[command(after_help = examples::WAIT)]
    Wait {
        /// Give up after this time
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Check configuration, credentials, network and outputs, and suggest fixes
    #[command(after_help = examples::DOCTOR)]
    Doctor {
        /// Check that this user, with these groups, can read the docker config.json
        #[arg(long, value_name = "UID[:GID,...]")]
        consumer: Option<Consumer>,
        /// Also pull this image with the published credential: tags, manifest, first layer
        #[arg(long, value_name = "HOST/REPOSITORY[:TAG]")]
        image: Option<ImageRef>,
        /// Take only the steps that this consumer takes [default: all steps]
        #[arg(long, value_enum, requires = "image")]
        as_consumer: Option<Puller>,
        /// Output format
        #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
        output: ReportFormat,
    },
    /// Show every registry and output of the running sidecar
    #[command(after_help = examples::STATUS)]
    Status {
        /// Redraw every second; in a pipe, print one block a second, separated by an empty line
        #[arg(long)]
        watch: bool,
        /// Output format: a table, or the JSON that /status returns
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Print AWS:PASSWORD for one registry, from the local file or else from AWS
    #[command(after_help = examples::PRINT)]
    Print {
        /// The registry
        #[arg(value_name = "HOST")]
        host: RegistryHost,
    },
    /// Provide the kubelet with pull credentials, by its exec protocol on standard input and output
    #[command(after_help = examples::KUBELET_CREDENTIAL_PROVIDER)]
    KubeletCredentialProvider {
        #[command(flatten)]
        rules: RoleRules,
        /// Instead, copy this program into the kubelet's --image-credential-provider-bin-dir, unless it is there already
        #[arg(long, value_name = "FOLDER", conflicts_with_all = ["role_annotation", "role_arn"])]
        install: Option<PathBuf>,
    },
    /// Print the RBAC rules and empty Secrets that the Kubernetes outputs need, for `kubectl apply -f -`
    #[command(after_help = examples::MANIFESTS)]
    Manifests {
        /// The service account of the sidecar's pod
        #[arg(long, value_name = "NAME")]
        service_account: ObjectName,
        /// The namespace of the sidecar's pod
        #[arg(long, value_name = "NAMESPACE")]
        namespace: NamespaceName,
        /// Also print an admission policy that names the Secrets in new pods with an image of the registries (Kubernetes 1.36)
        #[arg(long)]
        pod_pull_secrets: bool,
    },
    /// Print the effective configuration and where each value came from
    #[command(after_help = examples::CONFIG)]
    Config {
        /// Print the JSON Schema of the configuration file instead
        #[arg(long)]
        schema: bool,
    },
    /// Generate shell completions
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, for `man`
    #[command(after_help = examples::MAN)]
    Man,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ReportFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Question {
    Live,
    Ready,
    Startup,
}

impl Question {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez?verbose",
            Self::Ready => "/readyz?verbose",
            Self::Startup => "/startupz?verbose",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_is_taken_before_and_after_the_command() {
        for setting in setting::ALL {
            let flag = format!("--{}", setting.flag);
            for arguments in [["ecr-sidecar", &flag, "x", "once"], ["ecr-sidecar", "once", &flag, "x"]] {
                let flags = Cli::try_parse_from(arguments).unwrap().flags;
                assert_eq!(flags.0, [(setting.flag, "x".to_owned())].into());
            }
        }
    }
}
