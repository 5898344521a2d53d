//! With policies attached, what a principal may do is what IAM would let it do, and a denial is in AWS's words.

use ecr_emulator::{Attachment, Emulator, Reason, Settings};
use serde_json::{Value, json};

use crate::common::{Answer, Ask, ECR, Signer, ecr_token, shipped};

const OURS: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const THEIRS: &str = "999999999999.dkr.ecr.eu-west-1.amazonaws.com";
pub(crate) const USER: &str = "arn:aws:iam::123456789012:user/emulated";
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/ecr-pull";

pub(crate) const ALL: &str =
    r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;

pub(crate) fn statement(effect: &str, action: &str, rest: Value) -> String {
    let mut statement = json!({"Effect": effect, "Action": action});
    statement.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
}

pub(crate) fn allow(action: &str) -> String {
    statement("Allow", action, json!({"Resource": "*"}))
}

pub(crate) fn deny(action: &str) -> String {
    statement("Deny", action, json!({"Resource": "*"}))
}

pub(crate) fn to_anyone(effect: &str, action: &str) -> String {
    statement(effect, action, json!({"Principal": "*"}))
}

pub(crate) fn endpoint(effect: &str, action: &str) -> String {
    statement(effect, action, json!({"Principal": "*", "Resource": "*"}))
}

pub(crate) fn user() -> Attachment {
    Attachment::Identity(USER.to_owned())
}

fn repository(host: &str, name: &str) -> Attachment {
    Attachment::Repository(format!("arn:aws:ecr:eu-west-1:{}:repository/{name}", &host[..12]))
}

/// An emulator that asks no policies yet, and a token of its user.
fn start() -> (Emulator, String) {
    let emulator = Emulator::start(Settings::default()).unwrap();
    let token = ecr_token(&emulator, "eu-west-1");
    (emulator, token)
}

fn ask(emulator: &Emulator, token: &str, method: &'static str, host: &str, path: &str) -> Answer {
    let ask = Ask::new(method, path).header("host", host).header("authorization", &format!("Basic {token}"));
    ask.send(&emulator.endpoint()).unwrap()
}

fn manifest(emulator: &Emulator, token: &str, host: &str) -> Answer {
    ask(emulator, token, "GET", host, "/v2/app/manifests/1.0")
}

/// The message of a 403 as a registry gives it.
fn denial(answer: &Answer) -> String {
    let error = &answer.json()["errors"][0];
    assert_eq!((answer.status, error["code"].as_str()), (403, Some("DENIED")), "{}", answer.text());
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn without_policies_everything_is_allowed_and_with_one_only_what_policies_allow() {
    let (emulator, token) = start();
    assert_eq!(manifest(&emulator, &token, OURS).status, 200);
    emulator.set_policies(Attachment::Identity(ROLE.to_owned()), &[ALL]);
    assert_eq!(manifest(&emulator, &token, OURS).status, 403, "the user has no policy");
    emulator.set_policies(user(), &[&allow("ecr:ListImages"), &allow("ecr:BatchGet*")]);
    assert_eq!(manifest(&emulator, &token, OURS).status, 200);
    emulator.set_policies(user(), &[]);
    assert_eq!(manifest(&emulator, &token, OURS).status, 403);
    emulator.clear_policies();
    assert_eq!(manifest(&emulator, &token, OURS).status, 200);
}

#[test]
#[should_panic(expected = "lacks its Principal")]
fn what_is_no_policy_of_a_repository_is_rejected() {
    start().0.set_policies(repository(OURS, "app"), &[ALL]);
}

#[test]
fn each_request_takes_its_action_on_its_repository() {
    let (emulator, token) = start();
    let layer = manifest(&emulator, &token, OURS).json()["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = format!("/v2/app/blobs/{layer}");
    for (method, path, action) in [
        ("GET", "/v2/app/tags/list", "ecr:ListImages"),
        ("GET", "/v2/app/manifests/1.0", "ecr:BatchGetImage"),
        ("HEAD", "/v2/app/manifests/1.0", "ecr:BatchGetImage"),
        ("GET", &blob, "ecr:GetDownloadUrlForLayer"),
        ("HEAD", &blob, "ecr:BatchCheckLayerAvailability"),
        ("POST", "/v2/app/blobs/uploads/", "ecr:InitiateLayerUpload"),
        ("PUT", "/v2/app/manifests/1.0", "ecr:PutImage"),
    ] {
        emulator.set_policies(user(), &[ALL, &deny(action)]);
        assert_eq!(ask(&emulator, &token, method, OURS, path).status, 403, "{method} {path}");
        let call = emulator.calls().pop().unwrap();
        assert_eq!((call.denied.as_deref(), call.actions), (Some(action), vec![action.to_owned()]));
        assert_eq!(emulator.refusals().pop().unwrap().reason, Reason::NotAllowed(action.to_owned()));

        emulator.set_policies(user(), &[&allow(action)]);
        assert_ne!(ask(&emulator, &token, method, OURS, path).status, 403, "{method} {path}");
        let call = emulator.calls().pop().unwrap();
        assert_eq!((call.denied, call.actions), (None, vec![action.to_owned()]));
    }
    emulator.set_policies(user(), &[]);
    assert_eq!(ask(&emulator, &token, "GET", OURS, "/v2/").status, 200, "it takes no right");
}

#[test]
fn a_denial_names_the_kind_of_policy() {
    use Attachment::{Account, Registry, VpcEndpoint};
    let pull = "ecr:BatchGetImage";
    let account = || Account("123456789012".to_owned());
    let list = allow("ecr:ListImages");
    for (host, policies, expected) in [
        (OURS, vec![(user(), list.clone())], "because no identity-based policy allows the {} action"),
        (OURS, vec![(user(), deny(pull))], "with an explicit deny in an identity-based policy"),
        (
            OURS,
            vec![(user(), ALL.to_owned()), (repository(OURS, "app"), to_anyone("Deny", pull))],
            "with an explicit deny in a resource-based policy",
        ),
        (
            OURS,
            vec![(user(), ALL.to_owned()), (VpcEndpoint, endpoint("Allow", "ecr:ListImages"))],
            "because no VPC endpoint policy allows the {} action",
        ),
        (
            OURS,
            vec![(user(), ALL.to_owned()), (VpcEndpoint, endpoint("Deny", pull))],
            "with an explicit deny in a VPC endpoint policy",
        ),
        (
            OURS,
            vec![(user(), ALL.to_owned()), (account(), list.clone())],
            "because no service control policy allows the {} action",
        ),
        (
            OURS,
            vec![(user(), ALL.to_owned()), (account(), deny(pull))],
            "with an explicit deny in a service control policy",
        ),
        (THEIRS, vec![(user(), ALL.to_owned())], "because no resource-based policy allows the {} action"),
        (
            THEIRS,
            vec![(user(), list), (repository(THEIRS, "app"), to_anyone("Allow", pull))],
            "because no identity-based policy allows the {} action",
        ),
        (
            THEIRS,
            vec![
                (user(), ALL.to_owned()),
                (Registry("999999999999".to_owned()), endpoint("Deny", pull)),
                (repository(THEIRS, "app"), to_anyone("Allow", pull)),
            ],
            "with an explicit deny in a resource-based policy",
        ),
    ] {
        let (emulator, token) = start();
        for (to, document) in &policies {
            emulator.set_policies(to.clone(), &[document]);
        }
        let account = &host[..12];
        let resource = format!("arn:aws:ecr:eu-west-1:{account}:repository/app");
        let reason = expected.replace("{}", pull);
        assert_eq!(
            denial(&manifest(&emulator, &token, host)),
            format!("User: {USER} is not authorized to perform: {pull} on resource: {resource} {reason}"),
        );
    }
}

#[test]
fn a_repository_policy_suffices_in_its_account_and_across_accounts_needs_the_other_side() {
    let (emulator, token) = start();
    for (host, own, expected) in [(OURS, None, 200), (THEIRS, None, 403), (THEIRS, Some(ALL), 200)] {
        emulator.set_policies(user(), own.as_slice());
        emulator.set_policies(repository(host, "app"), &[&to_anyone("Allow", "ecr:*")]);
        assert_eq!(manifest(&emulator, &token, host).status, expected, "{host} {own:?}");
    }
}

#[test]
fn only_who_may_ask_learns_that_a_repository_does_not_exist() {
    let (emulator, token) = start();
    for (host, own, expected) in [(OURS, ALL, 404), (OURS, &deny("ecr:*"), 403), (THEIRS, ALL, 403)] {
        emulator.set_policies(user(), &[own]);
        let answer = ask(&emulator, &token, "GET", host, "/v2/nothing/tags/list");
        let code = if expected == 404 { "NAME_UNKNOWN" } else { "DENIED" };
        assert_eq!(answer.status, expected, "{host} {own}");
        assert_eq!(answer.json()["errors"][0]["code"], code);
    }
}

#[test]
fn public_images_take_no_right() {
    let (emulator, _) = start();
    let signer = Signer { region: "us-east-1", ..Signer::new("ecr-public") };
    emulator.set_policies(user(), &[&shipped("public-policy.json")]);
    let answer = signer.send(Ask::token("SpencerFrontendService"), &emulator.endpoint()).json();
    let token = answer["authorizationData"]["authorizationToken"].as_str().unwrap();
    assert_eq!(manifest(&emulator, token, "public.ecr.aws").status, 200);
}

#[test]
fn a_token_takes_its_own_action_on_every_resource() {
    let token_of = |emulator: &Emulator| Signer::new("ecr").send(Ask::token(ECR), &emulator.endpoint());
    let action = "ecr:GetAuthorizationToken";
    let narrow =
        statement("Allow", action, json!({"Resource": "arn:aws:ecr:eu-west-1:123456789012:repository/*"}));
    let identity = "because no identity-based policy allows the ecr:GetAuthorizationToken action";
    for (policies, expected) in [
        (vec![(user(), allow(action))], None),
        (vec![(user(), narrow)], Some(identity)),
        (vec![(repository(OURS, "app"), to_anyone("Allow", "ecr:*"))], Some(identity)),
        (
            vec![(Attachment::Registry("123456789012".to_owned()), to_anyone("Allow", "ecr:*"))],
            Some(identity),
        ),
        (
            vec![(user(), ALL.to_owned()), (Attachment::VpcEndpoint, endpoint("Deny", action))],
            Some("with an explicit deny in a VPC endpoint policy"),
        ),
    ] {
        let (emulator, _) = start();
        for (to, document) in &policies {
            emulator.set_policies(to.clone(), &[document]);
        }
        let answer = token_of(&emulator);
        let Some(reason) = expected else {
            assert_eq!(answer.status, 200, "{}", answer.text());
            continue;
        };
        assert_eq!((answer.status, answer.code().as_str()), (400, "AccessDeniedException"));
        let sentence = format!("User: {USER} is not authorized to perform: {action} on resource: * {reason}");
        assert_eq!(answer.json()["message"], sentence);
    }
}

#[test]
fn the_first_pull_through_a_cache_imports_and_creates() {
    let (emulator, token) = start();
    emulator.add_pull_through_cache("docker-hub");
    emulator.set_policies(user(), &[ALL]);
    let get = |path: &str| ask(&emulator, &token, "GET", OURS, path);
    let actions = || emulator.calls().pop().unwrap().actions;
    let (tags, image) = ("/v2/docker-hub/app/tags/list", "/v2/docker-hub/app/manifests/1.0");
    assert_eq!(get(tags).status, 404, "nothing has been pulled");
    let (pull, create, import) =
        ("ecr:BatchGetImage", "ecr:CreateRepository", "ecr:BatchImportUpstreamImage");
    for missing in [create, import] {
        emulator.set_policies(user(), &[ALL, &deny(missing)]);
        let message = denial(&get(image));
        let resource = "arn:aws:ecr:eu-west-1:123456789012:repository/docker-hub/app";
        assert!(
            message.contains(&format!("perform: {missing} on resource: {resource} with an explicit deny"))
        );
    }
    // The registry's policy may grant what fills the cache.
    emulator.set_policies(user(), &[&allow("ecr:Batch*Image"), &allow("ecr:ListImages")]);
    emulator.set_policies(Attachment::Registry(OURS[..12].to_owned()), &[&to_anyone("Allow", create)]);
    let manifest = get(image);
    assert_eq!(
        (manifest.status, actions()),
        (200, vec![pull.to_owned(), create.to_owned(), import.to_owned()])
    );
    let by_digest = manifest.header("docker-content-digest").unwrap();
    for path in [image, &format!("/v2/docker-hub/app/manifests/{by_digest}")] {
        assert_eq!((get(path).status, actions()), (200, vec![pull.to_owned()]), "{path}");
    }
    assert_eq!(get(tags).json(), json!({"name": "docker-hub/app", "tags": ["1.0"]}));
    assert_eq!(get("/v2/docker-hub/app/manifests/2.0").status, 404, "the upstream has no such tag");
    assert_eq!(actions(), [pull, import]);
    assert_eq!(get("/v2/app/tags/list").status, 200, "without the prefix there is no cache");

    // A repository that has a policy exists.
    emulator.set_policies(repository(THEIRS, "docker-hub/app"), &[&to_anyone("Allow", "ecr:Batch*Image")]);
    assert_eq!(ask(&emulator, &token, "GET", THEIRS, image).status, 200);
    assert_eq!(actions(), [pull, import]);
}
