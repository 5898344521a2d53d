//! `iam/`: policies that AWS's own client accepts, that allow what a pull needs and nothing else; Terraform's are the same.

mod cases;
mod enforced;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use hcl::{
    eval::{Context, Evaluate, FuncArgs, FuncDef, ParamType},
    structure::Structure,
};
use serde_json::{Value, json};
use test_support::{clean_command, markdown::blocks_of, output, program};

use crate::{
    build::{ROOT, read},
    containers::Ours,
};

/// What a client asks of ECR while it lists tags and pulls: AWS's documentation, "Required IAM permissions for pulling an
/// image"; and skopeo#726, where ECR denies the list of tags to who has only those.
const PULL: [&str; 4] =
    ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:ListImages"];

fn policy(name: &str) -> Value {
    serde_json::from_str(&read(&format!("patches/iam/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn actions(policy: &Value) -> Vec<&str> {
    let statements = policy["Statement"].as_array().unwrap().iter();
    let mut actions = Vec::new();
    for statement in statements {
        assert_eq!(statement["Effect"], "Allow");
        match &statement["Action"] {
            Value::String(action) => actions.push(action.as_str()),
            list => actions.extend(list.as_array().unwrap().iter().map(|action| action.as_str().unwrap())),
        }
    }
    actions
}

#[test]
fn policies_allow_pulls_and_lists_of_tags_and_nothing_else() {
    let token = ["ecr:GetAuthorizationToken"];
    for (name, expected) in [
        ("pull-policy.json", [&token[..], &PULL].concat()),
        ("public-policy.json", vec!["ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"]),
        ("trust-irsa.json", vec!["sts:AssumeRoleWithWebIdentity"]),
        ("trust-pod-identity.json", vec!["sts:AssumeRole", "sts:TagSession"]),
        ("pull-through-cache-policy.json", vec!["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]),
        ("cross-account/trust.json", vec!["sts:AssumeRole", "sts:TagSession"]),
        ("cross-account/assume-policy.json", vec!["sts:AssumeRole", "sts:TagSession"]),
        ("cross-account/repository-policy.json", PULL.to_vec()),
        ("cross-account/pull-policy.json", PULL.to_vec()),
    ] {
        let policy = policy(name);
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        assert_eq!(actions(&policy), expected, "{name}");
        assert!(
            read("patches/iam/README.md").contains(name.rsplit('/').next().unwrap()),
            "the README does not mention {name}"
        );
    }
}

/// One account, one role, one external id and the service accounts of the other folders, wherever they are named.
#[test]
fn the_example_is_one_throughout() {
    let condition = &policy("trust-irsa.json")["Statement"][0]["Condition"]["StringEquals"];
    let text = condition.to_string();
    for subject in ["flux-system:image-reflector-controller", "argocd:argocd-repo-server"] {
        assert!(text.contains(&format!("system:serviceaccount:{subject}")), "{text}");
    }
    let settings = read("patches/flux/settings.yaml");
    let role = "arn:aws:iam::123456789012:role/ecr-pull";
    assert!(settings.contains(role) && read("patches/iam/cross-account/trust.json").contains(role));
    let accounts = read("patches/flux/several-accounts/config.yaml");
    let theirs =
        policy("cross-account/assume-policy.json")["Statement"][0]["Resource"].as_str().unwrap().to_owned();
    let trust = policy("cross-account/trust.json");
    let external_id = trust["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"].as_str().unwrap();
    assert!(
        accounts.contains(&theirs) && accounts.contains(&format!("externalId: {external_id}")),
        "{accounts}"
    );
}

#[test]
fn terraform_makes_the_same_policies() {
    let body = hcl::parse(&read("patches/iam/terraform/main.tf")).unwrap();
    let mut context = Context::new();
    let mut variables = hcl::Map::new();
    for block in body.blocks().filter(|block| block.identifier() == "variable") {
        let default = block.body().attributes().find(|attribute| attribute.key() == "default").unwrap();
        variables.insert(block.labels()[0].as_str().to_owned(), default.expr().evaluate(&context).unwrap());
    }
    context.declare_var("var", hcl::Value::Object(variables));
    let locals = body.blocks().find(|block| block.identifier() == "locals").unwrap();
    let locals: hcl::Map<String, hcl::Value> = locals
        .body()
        .attributes()
        .map(|local| (local.key().to_owned(), local.expr().evaluate(&context).unwrap()))
        .collect();
    for (local, file) in [
        ("pull_policy", "pull-policy.json"),
        ("pull_through_cache_policy", "pull-through-cache-policy.json"),
        ("trust_irsa", "trust-irsa.json"),
        ("trust_pod_identity", "trust-pod-identity.json"),
    ] {
        assert_eq!(serde_json::to_value(&locals[local]).unwrap(), policy(file), "{local}");
    }

    // What the resources and outputs refer to is there.
    context.declare_var("local", hcl::Value::Object(locals));
    let made = json!({"ecr_pull": {"id": "ecr-pull", "arn": "arn:aws:iam::123456789012:role/ecr-pull"}});
    context.declare_var("aws_iam_role", hcl::to_value(made).unwrap());
    let jsonencode = FuncDef::builder().param(ParamType::Any);
    context.declare_func(
        "jsonencode",
        jsonencode.build(|args: FuncArgs| {
            serde_json::to_string(&args[0]).map(hcl::Value::from).map_err(|error| error.to_string())
        }),
    );
    let used = body.blocks().filter(|block| ["resource", "output"].contains(&block.identifier()));
    let mut evaluated = 0;
    for structure in used.flat_map(|block| block.body()) {
        if let Structure::Attribute(attribute) = structure {
            attribute
                .expr()
                .evaluate(&context)
                .unwrap_or_else(|error| panic!("{}: {error}", attribute.key()));
            evaluated += 1;
        }
    }
    assert_eq!(evaluated, 2 + 3 + 2, "each attribute of two resources and an output");
}

#[test]
fn the_aws_cli_accepts_the_commands_and_sends_the_policies() {
    let Some(aws) = program("aws") else { return };
    let readme = blocks_of("sh", &read("patches/iam/README.md"));
    let [role, association] = readme.as_slice() else { panic!("{readme:?}") };
    let sent_by = |block: &str, requests| {
        let (endpoint, bodies) = api(requests);
        let home = tempfile::tempdir().unwrap();
        let mut shell = clean_command("bash", home.path());
        shell.args(["-euc", block]).current_dir(Path::new(ROOT).join("patches/iam"));
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{path}", aws.parent().unwrap().display()));
        shell.env("AWS_ENDPOINT_URL", endpoint).env("AWS_DEFAULT_REGION", "us-east-1");
        shell.env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE").env("AWS_SECRET_ACCESS_KEY", "example");
        let done = output(&mut shell, Duration::from_secs(60));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        bodies.join().unwrap()
    };
    let asked: Vec<_> = sent_by(role, 2).iter().map(|body| form(body)).collect();
    let sent: Vec<_> = asked.iter().map(|form| form["Action"].as_str()).collect();
    assert_eq!(sent, ["CreateRole", "PutRolePolicy"]);
    let document =
        |form: &BTreeMap<String, String>, key: &str| serde_json::from_str::<Value>(&form[key]).unwrap();
    assert_eq!(document(&asked[0], "AssumeRolePolicyDocument"), policy("trust-irsa.json"));
    assert_eq!(document(&asked[1], "PolicyDocument"), policy("pull-policy.json"));

    let asked: Value = serde_json::from_slice(&sent_by(association, 1)[0]).unwrap();
    for (key, expected) in [
        ("namespace", "flux-system"),
        ("serviceAccount", "image-reflector-controller"),
        ("roleArn", "arn:aws:iam::123456789012:role/ecr-pull"),
    ] {
        assert_eq!(asked[key], expected, "{asked}");
    }
}

#[test]
fn the_page_names_the_service_account_of_every_container() {
    let readme = read("patches/iam/README.md");
    for ours in Ours::all().iter().filter(|ours| ours.place != "init-container") {
        let (namespace, name) = &ours.account;
        assert!(readme.contains(&format!("`{namespace}:{name}`")), "{}: {namespace}:{name}", ours.place);
    }
}

/// An API of AWS on loopback that takes so many requests, whatever they are: its endpoint, and what it was sent.
fn api(requests: usize) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = move || {
        let answer = |stream: io::Result<TcpStream>| {
            let mut stream = stream.unwrap();
            let body = read_body(&mut stream);
            let (kind, answer) = match form(&body).get("Action") {
                Some(name) => ("text/xml", format!("<{name}Response><{name}Result/></{name}Response>")),
                None => ("application/json", "{}".to_owned()),
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n");
            write!(stream, "{head}Content-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
            body
        };
        listener.incoming().take(requests).map(answer).collect()
    };
    (endpoint, thread::spawn(answer))
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    form_urlencoded::parse(body).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

fn read_body(stream: &mut impl Read) -> Vec<u8> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the request ends early");
        request.extend_from_slice(&chunk[..read]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if request.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return request[end + 4..].to_vec();
        }
    }
}
