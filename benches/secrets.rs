//! What the Kubernetes outputs cost, all in one run against a real API server: the memory of one Secret in steady
//! state, thousands of namespaces, and what a quiet time asks of the API server.
//!
//! `cargo bench --bench secrets`; `-- --namespaces 200` for fewer, `-- --quiet-minutes 16` to count the requests of a
//! quiet time. Needs what `tests/tools/build` makes, and etcd.

mod measure;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use measure::{AWS, Aws, HOST, Outcome, SIDECAR, kib, play_aws, report, variables};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{
    ApiServer, ServiceAccount, Sidecar, free_port, http_get, output, pause, release_program, wait_for,
};

const NAME: &str = "ecr-credentials";
/// In so many of them it is also done by `kubectl apply`, the loop that this program replaces.
const KUBECTL_SHARE: usize = 40;
const LONG: Duration = Duration::from_secs(1200);

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == AWS) {
        return play_aws();
    }
    let number = |name: &str, default: usize| {
        let index = arguments.iter().position(|argument| argument == name);
        index.and_then(|index| arguments.get(index + 1)).map_or(Ok(default), |text| text.parse())
    };
    let (namespaces, quiet_minutes) = (number("--namespaces", 2000)?, number("--quiet-minutes", 0)?);
    release_program();
    let Some(mut bench) = Bench::start()? else { return Ok(()) };
    bench.one_secret(quiet_minutes)?;
    bench.many_namespaces(namespaces)
}

/// A cluster, an AWS, and the sidecar's service account.
struct Bench {
    endpoint: String,
    /// Gone when AWS is away.
    aws: Option<Aws>,
    server: ApiServer,
    account: ServiceAccount,
    folder: TempDir,
}

impl Bench {
    fn start() -> Outcome<Option<Self>> {
        let Some(server) = ApiServer::start() else { return Ok(None) };
        let account = server.service_account("bench", "sidecar");
        let aws = Aws::start()?;
        Ok(Some(Self {
            endpoint: aws.endpoint.clone(),
            aws: Some(aws),
            server,
            account,
            folder: tempfile::tempdir()?,
        }))
    }

    /// A configuration of one output.
    fn configuration(&self, namespaces: &str) -> Outcome<PathBuf> {
        let path = self.folder.path().join("ecr-sidecar.yaml");
        let text = format!(
            "registries: [{{host: {HOST}}}]\noutputs: [{{type: docker-config-secret, name: {NAME}, \
             namespaces: {namespaces}}}]\n"
        );
        std::io::Write::write_all(&mut fs::File::create(&path)?, text.as_bytes())?;
        Ok(path)
    }

    /// The sidecar under the rights that it prints, and the address of its health endpoint.
    fn run(&self, configuration: &Path) -> Outcome<Running> {
        let mut manifests = Command::new(SIDECAR);
        manifests
            .args(["manifests", "--service-account", self.account.name(), "--config"])
            .arg(configuration);
        let manifests = manifests.args(["--namespace", self.account.namespace()]).output()?;
        self.server.apply(&String::from_utf8(manifests.stdout)?);
        let port = free_port();
        let sidecar = Sidecar::spawn(Path::new(SIDECAR), |run| {
            run.arg("run").arg("--config").arg(configuration);
            run.args(["--health-listen", &format!("127.0.0.1:{port}")]).envs(variables(&self.endpoint));
            run.env("KUBECONFIG", self.account.kubeconfig());
        });
        Ok(Running { sidecar, port })
    }

    fn one_secret(&self, quiet_minutes: usize) -> Outcome<()> {
        let running = self.run(&self.configuration("{names: [bench]}")?)?;
        running.wait_in_sync(1);
        running.wait_ready();
        pause(Duration::from_secs(5));
        let pid = running.sidecar.pid();
        report("release binary", fs::metadata(SIDECAR)?.len() as f64 / 1e6, "MB", 13.0);
        report("one Secret: resident", kib(pid, "VmRSS:")? / 1024.0, "MiB", 14.0);
        report("one Secret: anonymous part of it", kib(pid, "RssAnon:")? / 1024.0, "MiB", 4.0);
        if quiet_minutes > 0 {
            let mark = self.server.audit_mark();
            pause(Duration::from_secs(60 * quiet_minutes as u64));
            let user = self.account.user();
            let of_verb = |verb: &str| {
                self.server.count_requests(mark, |request| request.user == user && request.verb == verb)
            };
            let counts = ["get", "list", "watch", "patch"].map(|verb| format!("{} {verb}", of_verb(verb)));
            println!("one Secret: requests of {quiet_minutes} quiet minutes: {}", counts.join(", "));
        }
        Ok(())
    }

    fn many_namespaces(&mut self, count: usize) -> Outcome<()> {
        let names: Vec<_> = (0..count).map(|number| format!("many-{number:05}")).collect();
        for chunk in names.chunks(500) {
            let yaml = |name: &String| {
                format!(
                    "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{many: 'yes'}}}}}}\n---\n"
                )
            };
            self.server.apply(&chunk.iter().map(yaml).collect::<String>());
        }
        let configuration = self.configuration("{selector: many=yes}")?;
        let begun = Instant::now();
        let mark = self.server.audit_mark();
        let running = self.run(&configuration)?;
        running.wait_some_in_sync();
        self.server
            .apply("{apiVersion: v1, kind: Namespace, metadata: {name: many-new, labels: {many: 'yes'}}}");
        let created = Instant::now();
        wait_for("the new namespace's Secret", LONG, || {
            self.server.get("secret", "many-new", NAME).map(drop)
        });
        let (newcomer, done) = (created.elapsed(), running.in_sync());
        running.wait_in_sync(count + 1);
        let ours = begun.elapsed();
        let requests = self.requests(mark);
        let peak = kib(running.sidecar.pid(), "VmHWM:")? / 1024.0;
        drop(running);

        let apply = Instant::now();
        for name in names.iter().take(KUBECTL_SHARE) {
            let file = self.folder.path().join("secret.yaml");
            let yaml = format!(
                "{{apiVersion: v1, kind: Secret, metadata: {{name: by-kubectl, namespace: {name}}}, \
                 stringData: {{password: x}}}}\n"
            );
            std::io::Write::write_all(&mut fs::File::create(&file)?, yaml.as_bytes())?;
            let mut kubectl = self.server.kubectl_command(&self.server.kubeconfig());
            assert!(output(kubectl.args(["apply", "-f"]).arg(&file), LONG).status.success());
        }
        let by_kubectl = apply.elapsed().as_secs_f64() / KUBECTL_SHARE as f64;
        let by_us = ours.as_secs_f64() / (count + 1) as f64;

        // A restart while AWS is away: each Secret is checked, and there is nothing to write.
        drop(self.aws.take());
        let mark = self.server.audit_mark();
        let again = Instant::now();
        let second = self.run(&configuration)?;
        second.wait_in_sync(count + 1);
        second.wait_ready();
        let user = self.account.user();
        let second_writes = self.server.count_requests(mark, |it| it.user == user && it.is_write());

        println!("{count} namespaces:");
        println!("  first convergence    {:.1} s, {requests} requests", ours.as_secs_f64());
        println!(
            "  a kubectl apply each {:.0} ms, {:.1} times as long as ours of {:.1} ms",
            by_kubectl * 1e3,
            by_kubectl / by_us,
            by_us * 1e3
        );
        println!("  a new one meanwhile  {:.2} s, with {done} of the others done", newcomer.as_secs_f64());
        println!("  second pass          {:.1} s, {second_writes} writes", again.elapsed().as_secs_f64());
        report("  peak resident", peak, "MiB", 25.0);
        Ok(())
    }

    fn requests(&self, mark: test_support::kubernetes::AuditMark) -> usize {
        let user = self.account.user();
        self.server.count_requests(mark, |request| request.user == user)
    }
}

/// A running sidecar.
struct Running {
    sidecar: Sidecar,
    port: u16,
}

impl Running {
    fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(([127, 0, 0, 1], self.port).into(), path).ok()
    }

    fn in_sync(&self) -> usize {
        let status = self.get("/status").and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
        let count = status.and_then(|status| status["outputs"][0]["targets"]["in_sync"].as_u64());
        count.unwrap_or(0) as usize
    }

    fn wait_some_in_sync(&self) {
        wait_for("the first Secrets", LONG, || (self.in_sync() > 0).then_some(()));
    }

    fn wait_in_sync(&self, count: usize) {
        wait_for("all Secrets", LONG, || (self.in_sync() >= count).then_some(()));
    }

    fn wait_ready(&self) {
        wait_for("readiness", LONG, || self.get("/readyz").filter(|(code, _)| *code == 200));
    }
}
