//! Uses a change of the files that an identity rests on at once.

use std::sync::Arc;

use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use crate::{
    aws::identity::Identity,
    fs::watch::{FileWatcher, Watched},
};

pub(super) struct InputWatch {
    identity: Arc<Identity>,
    wakes: Vec<Arc<Notify>>,
    task: AbortHandle,
    _watched: Watched,
}

impl InputWatch {
    /// The watch before it, if that is what is wanted, else a new one; none for an identity without files. The one before
    /// goes on until the new one watches: no change between the two is missed.
    pub(super) async fn renewed(
        before: Option<Self>,
        name: &str,
        identity: &Arc<Identity>,
        wakes: Vec<Arc<Notify>>,
        watcher: &FileWatcher,
        tasks: &mut JoinSet<()>,
    ) -> Option<Self> {
        let before = match before {
            Some(same) if same.is_for(identity, &wakes) => return Some(same),
            other => other,
        };
        let files = Some(identity.files()).filter(|files| !files.is_empty())?;
        let changed = Arc::new(Notify::new());
        let watched = watcher.watch(files, Arc::clone(&changed)).await;
        drop(before);
        let task = {
            let (name, identity, wakes) = (name.to_owned(), Arc::clone(identity), wakes.clone());
            tasks.spawn(async move {
                loop {
                    changed.notified().await;
                    tracing::info!(identity = name, "credential file changed; refreshing");
                    identity.forget();
                    wakes.iter().for_each(|wake| wake.notify_one());
                }
            })
        };
        Some(Self { identity: Arc::clone(identity), wakes, task, _watched: watched })
    }

    fn is_for(&self, identity: &Arc<Identity>, wakes: &[Arc<Notify>]) -> bool {
        Arc::ptr_eq(&self.identity, identity)
            && self.wakes.len() == wakes.len()
            && self.wakes.iter().zip(wakes).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Drop for InputWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, time::Duration};

    use aws_config::SdkConfig;

    use super::*;
    use crate::{
        aws::identity::{IdentitySpec, Source, StaticFiles},
        clock::Clock,
        env::Environment,
    };

    #[tokio::test]
    async fn a_change_between_two_watches_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let put = |text: &str| File::create(&keys).unwrap().write_all(text.as_bytes()).unwrap();
        put("one");
        let files =
            StaticFiles { access_key_id: keys.clone(), secret_access_key: keys.clone(), session_token: None };
        let spec = IdentitySpec {
            name: "default".into(),
            source: Source::Static(files),
            assume_roles: Vec::new(),
            sts_region: "eu-west-1".parse().unwrap(),
            expect_account: None,
        };
        let env = Environment::from_pairs([("HOME", "/nowhere")]);
        let identity = Arc::new(Identity::new(spec, env, SdkConfig::builder().build(), Clock::System));
        let watcher = FileWatcher::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.clone().run());
        let [one, other] = [(); 2].map(|()| Arc::new(Notify::new()));
        let of_one = vec![Arc::clone(&one)];
        let first = InputWatch::renewed(None, "default", &identity, of_one, &watcher, &mut tasks).await;

        tokio::time::sleep(Duration::from_millis(300)).await; // a check may be under way
        put("another");
        // inotify has reported it before anything else runs on this thread.
        test_support::pause(Duration::from_millis(100));
        let of_both = vec![Arc::clone(&one), other];
        let _second = InputWatch::renewed(first, "default", &identity, of_both, &watcher, &mut tasks).await;
        tokio::time::timeout(Duration::from_secs(30), one.notified()).await.expect("the change is noticed");
    }
}
