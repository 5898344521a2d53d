//! What has become of the pods, and what did they say?
//!
//! A pod is found by its name, or by labels (`app=web`, `app=web,tier=db`): the youngest of those that aren't
//! being deleted.

use std::{collections::BTreeMap, ffi::OsStr, process::Output, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Deserializer, Value};

use super::{Node, Usage, cgroups, machine::status};
use crate::{
    process::{Process, output},
    wait::{wait_for, within},
};

/// How long a pod may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the node's word may lag behind what is so.
const SOON: Duration = Duration::from_secs(10);

impl Node {
    /// The pod, `None` when there is none.
    ///
    /// # Panics
    /// When the API server does not answer.
    #[track_caller]
    pub fn pod(&self, namespace: &str, pod: &str) -> Option<Value> {
        let selector = selector(pod);
        let list = self.kubectl(["get", "pods", "--namespace", namespace, &selector, "--output=json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        youngest(list["items"].as_array().expect("a list"))
    }

    /// Waits until the pod is ready, and hands it over.
    ///
    /// # Panics
    /// When it is not within two minutes; the message has its status and its namespace's events.
    #[track_caller]
    pub fn wait_pod_ready(&self, namespace: &str, pod: &str) -> Value {
        self.wait_pod(namespace, pod, "to be ready", |pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        })
    }

    /// Waits until there is such a pod and `condition` holds for it, and hands it over. The message of a failure
    /// says that it was waited for the pod `what`.
    ///
    /// # Panics
    /// When that has not come within two minutes; the message has its status and its namespace's events.
    #[track_caller]
    pub fn wait_pod(
        &self,
        namespace: &str,
        pod: &str,
        what: &str,
        mut condition: impl FnMut(&Value) -> bool,
    ) -> Value {
        let mut kubectl = self.kubectl_command(&self.kubeconfig());
        kubectl.args(["get", "pods", "--namespace", namespace, &selector(pod), "--watch", "--output=json"]);
        let watch = Process::spawn(&mut kubectl);
        let (mut seen, mut last) = (0, None);
        let found = within(PATIENCE, || {
            let text = watch.stdout();
            if text.len() == seen {
                assert!(watch.exit_status().is_none(), "kubectl ended: {}", watch.stderr());
                return None;
            }
            seen = text.len();
            last = youngest(&latest(&text));
            last.clone().filter(&mut condition)
        });
        found.unwrap_or_else(|| {
            let status = last.map(|pod| format!("{:#}", pod["status"])).unwrap_or_default();
            let events = self.kubectl(["get", "events", "--namespace", namespace]);
            panic!("waited {PATIENCE:?} in vain for pod {pod} in {namespace} {what}\n{status}\n{events}")
        })
    }

    /// What a container has written, since it last started.
    ///
    /// # Panics
    /// When it can't be had.
    #[track_caller]
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> String {
        let pod = self.named(namespace, pod);
        self.kubectl(["logs", "--namespace", namespace, name(&pod), "--container", container])
    }

    /// Runs `command` in a container, whatever comes of it.
    ///
    /// # Panics
    /// When there is no such pod, or the command does not end.
    #[track_caller]
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: impl IntoIterator<Item = S>,
    ) -> Output {
        let pod = self.named(namespace, pod);
        let mut kubectl = self.kubectl_command(&self.kubeconfig());
        kubectl.args(["exec", "--namespace", namespace, name(&pod), "--container", container, "--"]);
        output(kubectl.args(command), PATIENCE)
    }

    /// How often a container has been started again.
    ///
    /// # Panics
    /// When there is no such pod.
    #[track_caller]
    pub fn restart_count(&self, namespace: &str, pod: &str, container: &str) -> u64 {
        restart_count(&self.named(namespace, pod), container)
    }

    /// The process id, on this machine, of the first process of a container that runs: to be signalled, and to be
    /// looked at in `/proc/PID/`. Through `/proc/PID/root/` its files can be seen as it sees them.
    ///
    /// One that has just been killed is waited for; until the node has seen that, [`Node::restart_count`] is what
    /// it was.
    ///
    /// # Panics
    /// When there is no such pod, or the container does not run within ten seconds.
    #[track_caller]
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> u32 {
        self.first_process(namespace, pod, container).as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends `signal` to the first process of a container, from outside: SIGKILL ends it as the kernel does when
    /// memory runs out.
    ///
    /// # Panics
    /// As [`Node::container_pid`].
    #[track_caller]
    pub fn signal_container(&self, namespace: &str, pod: &str, container: &str, signal: Signal) {
        let pid = self.first_process(namespace, pod, container);
        kill_process(pid, signal)
            .unwrap_or_else(|e| panic!("can't send {signal:?} to container {container}: {e}"));
    }

    /// What a container may use, and has used since it last started.
    ///
    /// # Panics
    /// As [`Node::container_pid`].
    #[track_caller]
    pub fn usage(&self, namespace: &str, pod: &str, container: &str) -> Usage {
        let pod = self.named(namespace, pod);
        let usage = container_id(&pod, container).and_then(|id| cgroups::usage(&self.machine.cgroup(), id));
        usage.unwrap_or_else(|| panic!("container {container} does not run: {:#}", pod["status"]))
    }

    /// Lets a container have no more memory than that, in bytes, until it is started again: when it wants more, the
    /// kernel kills it.
    ///
    /// # Panics
    /// As [`Node::container_pid`], and when it has more already.
    #[track_caller]
    pub fn limit_memory(&self, namespace: &str, pod: &str, container: &str, bytes: u64) {
        let pod = self.named(namespace, pod);
        let id = container_id(&pod, container).expect("a started container");
        cgroups::limit_memory(&self.machine.cgroup(), id, bytes)
            .unwrap_or_else(|e| panic!("can't limit container {container} to {bytes} bytes: {e}"));
    }

    #[track_caller]
    fn first_process(&self, namespace: &str, pod: &str, container: &str) -> Pid {
        wait_for(&format!("container {container} of pod {pod} in {namespace} to run"), SOON, || {
            let pod = self.named(namespace, pod);
            let id = container_id(&pod, container)?;
            cgroups::processes(&self.machine.cgroup(), id).into_iter().find(|pid| is_first(*pid))
        })
    }

    #[track_caller]
    fn named(&self, namespace: &str, pod: &str) -> Value {
        self.pod(namespace, pod).unwrap_or_else(|| panic!("there is no pod {pod} in {namespace}"))
    }
}

/// How often `container` of `pod` has been started again, as far as its status says.
pub fn restart_count(pod: &Value, container: &str) -> u64 {
    container_status(pod, container)["restartCount"].as_u64().unwrap_or(0)
}

/// The status of `container` of `pod`, be it a main container or an init container; null as long as it has none.
pub fn container_status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    all.find(|status| status["name"] == container).unwrap_or(&Value::Null)
}

/// What containerd calls it; `None` before its first start.
fn container_id<'a>(pod: &'a Value, container: &str) -> Option<&'a str> {
    container_status(pod, container)["containerID"].as_str()?.strip_prefix("containerd://")
}

/// Whether it is process 1 of its own process namespace, the innermost.
fn is_first(pid: Pid) -> bool {
    status(pid, "NSpid").is_some_and(|ids| ids.split_whitespace().last() == Some("1"))
}

/// What selects the pods for `kubectl`.
fn selector(pod: &str) -> String {
    if pod.contains('=') {
        format!("--selector={pod}")
    } else {
        format!("--field-selector=metadata.name={pod}")
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().expect("a pod has a name")
}

/// The last state of each pod in what a watch has printed, which may end in the middle of an object.
fn latest(text: &str) -> Vec<Value> {
    let objects = Deserializer::from_str(text).into_iter::<Value>().map_while(Result::ok);
    let by_id: BTreeMap<String, Value> =
        objects.map(|pod| (pod["metadata"]["uid"].to_string(), pod)).collect();
    by_id.into_values().collect()
}

fn youngest(pods: &[Value]) -> Option<Value> {
    let alive = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    alive.max_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str()).cloned()
}
