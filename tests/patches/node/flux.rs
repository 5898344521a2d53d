//! Flux's image-reflector-controller, with crane in its place: from the first start to the last.

use std::fs;

use serde_json::{Value, json};
use test_support::{
    Process, Signal,
    kubernetes::node::{container_status, restart_count},
    wait_for,
};

use crate::{
    build::Product,
    node::{
        consumers::{ENDS, HOST, PULLED, REFUSED, WITH_FILE},
        scene::{DEADLINE, ROLE, Scene, add_env, built, config_map, own_kubelet, push},
    },
    scc::FIRST,
};

const NAMESPACE: &str = "flux-system";
const POD: &str = "app=image-reflector-controller";
const MAIN: &str = "manager";
const SIDECAR: &str = "ecr-sidecar";
const PARTNER: &str = "999999999999.dkr.ecr.us-east-1.amazonaws.com";

#[test]
fn image_reflector_controller_always_has_a_credential() {
    let Some(flux) = Scene::new(NAMESPACE, &["flux-system:image-reflector-controller"]) else { return };
    flux.deploy(Product::Flux, &["image-reflector-controller", "sidecar", "web-identity"]);
    flux.run_of_readme("patches/flux/README.md", "**Verify:**");
    flux.walk("Flux", &[("111122223333.dkr.ecr.eu-central-1.amazonaws.com", HOST)]);

    the_main_container_started_with_the_file(&flux);
    the_credential_is_where_flux_reads_it(&flux);
    the_consumer_alone_reads_the_file(&flux);
    the_sidecar_is_confined(&flux);
    sts_was_asked_with_the_clusters_token(&flux);
    a_probe_is_cheap(&flux);
    a_renewed_token_is_noticed(&flux);
    a_killed_sidecar_comes_back_and_no_pull_is_rejected(&flux);
    the_pod_ends_with_the_sidecar_last(&flux);

    flux.deploy(
        Product::Flux,
        &["image-reflector-controller", "sidecar", "web-identity", "several-accounts"],
    );
    an_edited_config_map_is_applied_without_a_restart(&flux);
    a_sidecar_that_the_kernel_kills_comes_back_with_the_file_intact(&flux);
    a_thousand_registries_stay_within_the_limits(&flux);

    deploy_with_an_association(&flux);
    pod_identity_is_used_as_the_webhook_hands_it_over(&flux);

    flux.make_keys("patches/flux/README.md");
    flux.deploy(Product::Flux, &["image-reflector-controller", "sidecar", "static-keys", "plain-container"]);
    a_plain_container_does_the_same_with_static_keys(&flux);

    deploy_on_openshift(&flux);
    the_consumer_reads_the_file_with_a_uid_of_openshift(&flux);
}

fn the_main_container_started_with_the_file(flux: &Scene) {
    let log = flux.wait_log(POD, MAIN, PULLED);
    assert_eq!(log, PULLED);
    let log = flux.logs(POD, MAIN);
    assert_eq!(log.lines().next(), Some(WITH_FILE), "{log}");
    let pod = flux.node.pod(NAMESPACE, POD).unwrap();
    assert_eq!(pod["spec"]["containers"][0]["name"], MAIN);
    let started = |name: &str| container_status(&pod, name)["state"]["running"]["startedAt"].to_string();
    assert!(started(SIDECAR) <= started(MAIN), "{} {}", started(SIDECAR), started(MAIN));
}

fn the_credential_is_where_flux_reads_it(flux: &Scene) {
    assert_eq!(flux.hosts_in_secret("ecr-credentials"), [HOST]);
    let pull = flux.aws.pulls().into_iter().next_back().unwrap();
    assert!(pull.principal.contains("assumed-role/ecr-pull/"), "{}", pull.principal);
}

fn the_consumer_alone_reads_the_file(flux: &Scene) {
    let seen = flux.shell(
        POD,
        MAIN,
        "cd $DOCKER_CONFIG; busybox id -u; busybox stat -c '%u:%g %a' config.json; busybox stat -f -c %T .; \
         busybox touch x 2>&1 | busybox grep -c Read-only",
    );
    assert_eq!(seen, "65534\n65534:1337 640\ntmpfs\n1");
}

fn the_sidecar_is_confined(flux: &Scene) {
    let status = proc(flux, "status");
    for line in ["Uid:\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
    let mounts = proc(flux, "mounts");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
    assert!(root.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"), "{root}");
}

fn sts_was_asked_with_the_clusters_token(flux: &Scene) {
    let calls = flux.aws.calls();
    let call = calls.iter().find(|call| call.operation == "AssumeRoleWithWebIdentity").unwrap();
    let subject = "system:serviceaccount:flux-system:image-reflector-controller";
    assert_eq!((call.principal.as_deref(), call.status), (Some(subject), Some(200)));
    let status: Value = serde_json::from_str(&status(flux)).unwrap();
    assert!(
        status.to_string().contains("assumed-role/ecr-pull") || status.to_string().contains(ROLE),
        "{status}"
    );
}

fn a_probe_is_cheap(flux: &Scene) {
    const PROBES: u32 = 20;
    let cpu = || flux.node.usage(NAMESPACE, POD, SIDECAR).cpu;
    let before = cpu();
    for _ in 0..PROBES {
        assert!(flux.ask(POD, &["health", "live"]).contains("ok"));
    }
    let each = (cpu() - before) / PROBES;
    println!("a probe: {each:?} of processor time, with what the runtime does for an exec");
    assert!(each.as_millis() < 500, "{each:?}");
}

fn a_renewed_token_is_noticed(flux: &Scene) {
    let asked = || {
        let calls = flux.aws.calls();
        calls
            .iter()
            .filter(|call| call.operation == "AssumeRoleWithWebIdentity" && call.status == Some(200))
            .count()
    };
    let before = asked();
    let _alone = own_kubelet();
    flux.node.restart_kubelet(); // which gives each pod a new token
    wait_for("STS to be asked with the new token", DEADLINE, || (asked() > before).then_some(()));
}

fn a_killed_sidecar_comes_back_and_no_pull_is_rejected(flux: &Scene) {
    let file = "busybox sha256sum $DOCKER_CONFIG/config.json";
    let before = flux.shell(POD, MAIN, file);
    flux.aws.set_fault(ecr_emulator::Service::Ecr, ecr_emulator::Fault::Status(503)); // what is there is all there is
    flux.node.signal_container(NAMESPACE, POD, SIDECAR, Signal::KILL);
    assert_eq!(flux.shell(POD, MAIN, file), before);
    let pulls = flux.count(POD, MAIN, PULLED);
    flux.node.wait_pod(NAMESPACE, POD, "to have its sidecar again", |pod| {
        restart_count(pod, SIDECAR) == 1 && container_status(pod, SIDECAR)["started"] == true
    });
    flux.wait_more(POD, MAIN, PULLED, pulls + 2);
    assert_eq!(flux.shell(POD, MAIN, file), before);
    flux.aws.clear_faults();
    assert_eq!(flux.node.restart_count(NAMESPACE, POD, MAIN), 0);
    flux.assert_none_rejected(POD, MAIN);
}

fn the_pod_ends_with_the_sidecar_last(flux: &Scene) {
    let pod = flux.node.pod(NAMESPACE, POD).unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    let follow = |container: &str| {
        let mut kubectl = flux.node.kubectl_command(&flux.node.kubeconfig());
        kubectl.args(["-n", NAMESPACE, "logs", "-f", "--timestamps", name, "-c", container]);
        Process::spawn(&mut kubectl)
    };
    let (main, sidecar) = (follow(MAIN), follow(SIDECAR));
    let mut kubectl = flux.node.kubectl_command(&flux.node.kubeconfig());
    let ends =
        "jsonpath={.status['containerStatuses','initContainerStatuses'][0].state.terminated.exitCode}{'\\n'}";
    kubectl.args(["-n", NAMESPACE, "get", "pod", name, "--watch", "-o", ends]);
    let watch = Process::spawn(&mut kubectl);
    wait_for("the logs", DEADLINE, || {
        (!main.stdout().is_empty() && !sidecar.stdout().is_empty()).then_some(())
    });
    flux.node.kubectl(["-n", NAMESPACE, "delete", "pod", name]);
    let last = |process: &Process, part: &str| {
        process.wait_exit(DEADLINE);
        let log = process.stdout();
        let line =
            log.lines().rfind(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part:?} in\n{log}"));
        line.split(' ').next().unwrap().to_owned()
    };
    let (main, sidecar) = (last(&main, ENDS), last(&sidecar, "\"stopping\""));
    assert!(main <= sidecar, "{main} {sidecar}");
    // Had the grace period ended first, it would be 137.
    wait_for("both to end by themselves", DEADLINE, || {
        watch.stdout().lines().any(|line| line == "0 0").then_some(())
    });
}

fn an_edited_config_map_is_applied_without_a_restart(flux: &Scene) {
    flux.wait_log(POD, MAIN, PULLED);
    let mut hosts = flux.hosts_in_secret("ecr-credentials");
    hosts.sort();
    assert_eq!(hosts, [HOST, PARTNER]);
    let pid = flux.node.container_pid(NAMESPACE, POD, SIDECAR);
    let more = "111111111111.dkr.ecr.eu-west-1.amazonaws.com";
    let text = crate::build::read("patches/flux/several-accounts/config.yaml");
    let edited = text.replace("registries:\n", &format!("registries:\n  - host: {more}\n"));
    configure(flux, &edited);
    wait_for("the new registry", DEADLINE, || {
        flux.hosts_in_secret("ecr-credentials").contains(&more.to_owned()).then_some(())
    });
    // A bad one changes nothing, and is reported.
    configure(flux, "registries: [{hots: typo}]\n");
    let reported = flux.wait_log(POD, SIDECAR, "hots");
    assert!(reported.contains("host"), "{reported}");
    assert_eq!(flux.node.container_pid(NAMESPACE, POD, SIDECAR), pid);
    assert_eq!(flux.hosts_in_secret("ecr-credentials").len(), 3);
    flux.assert_none_rejected(POD, MAIN);
}

fn a_sidecar_that_the_kernel_kills_comes_back_with_the_file_intact(flux: &Scene) {
    let whole = "busybox tail -c 2 $DOCKER_CONFIG/config.json";
    let end = flux.shell(POD, MAIN, whole);
    // A thousand registries are more than it may have now. Started again it has the limit of the manifest.
    flux.node.limit_memory(NAMESPACE, POD, SIDECAR, 4 << 20);
    configure_a_thousand(flux);
    flux.node.wait_pod(NAMESPACE, POD, "to have its sidecar killed", |pod| {
        container_status(pod, SIDECAR)["lastState"]["terminated"]["reason"] == "OOMKilled"
    });
    assert_eq!(flux.shell(POD, MAIN, whole), end);
    flux.assert_none_rejected(POD, MAIN);
    assert_eq!(flux.node.restart_count(NAMESPACE, POD, MAIN), 0);
}

fn a_thousand_registries_stay_within_the_limits(flux: &Scene) {
    let restarts = flux.node.restart_count(NAMESPACE, POD, SIDECAR);
    configure_a_thousand(flux);
    let count = "busybox grep -o 'dkr.ecr' $DOCKER_CONFIG/config.json | busybox wc -l";
    // Two that left the configuration while the sidecar was away are not its own any more.
    let all = || flux.shell(POD, MAIN, count).parse::<u32>().unwrap() >= 1000;
    wait_for("a thousand entries", DEADLINE, || all().then_some(()));
    let size = flux.shell(POD, MAIN, "busybox stat -c %s $DOCKER_CONFIG/config.json");
    for _ in 0..3 {
        // Both copies of the file are there while it is replaced.
        let before = flux.shell(POD, MAIN, "busybox stat -c %i $DOCKER_CONFIG/config.json");
        flux.node.signal_container(NAMESPACE, POD, SIDECAR, Signal::HUP);
        let inode = "busybox stat -c %i $DOCKER_CONFIG/config.json";
        wait_for("a new file", DEADLINE, || (flux.shell(POD, MAIN, inode) != before).then_some(()));
    }
    assert_eq!(flux.node.restart_count(NAMESPACE, POD, SIDECAR), restarts);
    let usage = flux.node.usage(NAMESPACE, POD, SIDECAR);
    println!("1000 registries: a file of {size} bytes; {usage:?}");
    assert_eq!(usage.memory_limit, 64 << 20);
    assert!(usage.memory_peak < usage.memory_limit * 3 / 4, "{usage:?}");
    flux.assert_none_rejected(POD, MAIN);
}

fn configure_a_thousand(flux: &Scene) {
    let accounts = 123_456_789_012_u64..;
    let registries: String = accounts
        .take(1000)
        .map(|account| format!("  - host: {account}.dkr.ecr.eu-west-1.amazonaws.com\n"))
        .collect();
    let file = "outputs: [{type: docker-config, path: /var/run/ecr-sidecar/config.json}]\n";
    configure(flux, &format!("registries:\n{registries}{file}"));
}

/// Without an identity of ours, and with what the EKS Pod Identity webhook adds to every container of a pod.
fn deploy_with_an_association(flux: &Scene) {
    const FOLDER: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
    const TOKEN: &str = "eks-pod-identity-token";
    let mut objects = built(Product::Flux, &["image-reflector-controller", "sidecar"]);
    let deployment = objects.0.iter_mut().find(|object| object["kind"] == "Deployment").unwrap();
    let pod = &mut deployment["spec"]["template"]["spec"];
    for key in ["initContainers", "containers"] {
        for container in pod[key].as_array_mut().unwrap() {
            let variables = [
                ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
                ("AWS_DEFAULT_REGION", "eu-central-1"),
                ("AWS_REGION", "eu-central-1"),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &format!("{FOLDER}/{TOKEN}")),
                // The agent's own address is its node's; loopback is as good.
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", flux.aws.endpoint())),
            ];
            add_env(container, &variables);
            push(
                &mut container["volumeMounts"],
                json!({"name": TOKEN, "mountPath": FOLDER, "readOnly": true}),
            );
        }
    }
    let token = json!({"audience": "pods.eks.amazonaws.com", "expirationSeconds": 86400, "path": TOKEN});
    let projected = json!({"defaultMode": 420, "sources": [{"serviceAccountToken": token}]});
    push(&mut pod["volumes"], json!({"name": TOKEN, "projected": projected}));
    flux.apply_changed(objects);
    flux.roll_out("image-reflector-controller");
}

fn pod_identity_is_used_as_the_webhook_hands_it_over(flux: &Scene) {
    flux.wait_log(POD, MAIN, PULLED);
    assert!(status(flux).contains("\"source\":\"container\""), "{}", status(flux));
    let pull = flux.aws.pulls().into_iter().next_back().unwrap();
    assert!(pull.principal.contains("assumed-role/ecr-pull/"), "{}", pull.principal);
    flux.assert_none_rejected(POD, MAIN);
}

fn a_plain_container_does_the_same_with_static_keys(flux: &Scene) {
    flux.wait_log(POD, MAIN, PULLED);
    let pod = flux.node.pod(NAMESPACE, POD).unwrap();
    let names: Vec<_> =
        pod["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, [MAIN, SIDECAR]);
    assert!(pod["spec"]["initContainers"].is_null());
    assert!(status(flux).contains("\"source\":\"profile\""), "{}", status(flux));
    let pull = flux.aws.pulls().into_iter().next_back().unwrap();
    assert!(pull.principal.ends_with("user/emulated"), "{}", pull.principal);
}

/// Without Flux's own fsGroup, which its OpenShift patches remove.
fn deploy_on_openshift(flux: &Scene) {
    let mut objects =
        built(Product::Flux, &["image-reflector-controller", "sidecar", "web-identity", "openshift"]);
    let deployment = objects.0.iter_mut().find(|object| object["kind"] == "Deployment").unwrap();
    let removed = deployment["spec"]["template"]["spec"].as_object_mut().unwrap().remove("securityContext");
    assert_eq!(removed, Some(json!({"fsGroup": 1337})));
    flux.deploy_on_openshift(objects, "image-reflector-controller");
}

fn the_consumer_reads_the_file_with_a_uid_of_openshift(flux: &Scene) {
    flux.wait_log(POD, MAIN, PULLED);
    let file = "cd $DOCKER_CONFIG; busybox id -u; busybox stat -c '%u:%g %a' config.json";
    assert_eq!(flux.shell(POD, MAIN, file), format!("{FIRST}\n{FIRST}:{FIRST} 640"));
    assert!(flux.hosts_in_secret("ecr-credentials").contains(&HOST.to_owned()));
    let log = flux.logs(POD, MAIN);
    assert!(log.starts_with(WITH_FILE) && !log.contains(REFUSED), "{log}");
}

fn configure(flux: &Scene, text: &str) {
    flux.apply(&[config_map(SIDECAR, NAMESPACE, &json!({"config.yaml": text}))]);
}

fn status(flux: &Scene) -> String {
    flux.get("/status")
}

fn proc(flux: &Scene, file: &str) -> String {
    let pid = flux.node.container_pid(NAMESPACE, POD, SIDECAR);
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}
