//! What `--help` shows below the flags: how each command is used.
//!
//! Invariant: the parser takes each example (`the_parser_takes_each_example`), and no command is without one.

pub(super) const ALL: &str = "Examples:
  ecr-sidecar once --registries 123456789012.dkr.ecr.eu-west-1.amazonaws.com --docker-config ./config.json
  DOCKER_CONFIG=$PWD helm pull oci://123456789012.dkr.ecr.eu-west-1.amazonaws.com/charts/app

Every flag has an environment variable, and everything else is in a YAML file: ecr-sidecar config --schema
Each command has examples of its own: ecr-sidecar once --help";

pub(super) const RUN: &str = "SIGTERM stops it; SIGHUP refreshes everything now. Exit status: 0 after SIGTERM, 64 for an invalid \
configuration, 1 for an internal error.

Examples:
  ecr-sidecar run --config /etc/ecr-sidecar/config.yaml
  ECR_SIDECAR_REGISTRIES=123456789012.dkr.ecr.eu-west-1.amazonaws.com ecr-sidecar run --docker-config ./config.json";

pub(super) const ONCE: &str =
    "Exit status: 0 when every required credential is in every output, 69 when not, 64 for an invalid \
configuration.

Examples:
  ecr-sidecar once --registries 123456789012.dkr.ecr.eu-west-1.amazonaws.com --docker-config ./config.json
  AWS_PROFILE=me AWS_REGION=eu-west-1 ecr-sidecar once --docker-config ./config.json --timeout 20s
  ecr-sidecar once --registries public.ecr.aws --docker-config-secret flux-system/ecr-credentials";

pub(super) const HEALTH: &str = "Exit status: 0 when healthy, 1 when not or when no sidecar answers.

Examples:
  ecr-sidecar health
  ecr-sidecar health startup
  kubectl -n flux-system exec deployment/image-reflector-controller -c ecr-sidecar -- ecr-sidecar health ready";

pub(super) const WAIT: &str = "Exit status: 0 when ready, 69 when not ready in time.

Examples:
  ecr-sidecar wait && helm pull oci://123456789012.dkr.ecr.eu-west-1.amazonaws.com/charts/app
  ecr-sidecar wait --timeout 5m";

pub(super) const DOCTOR: &str =
    "It changes nothing, prints no secret, and takes at most 15 seconds. Exit status: 0 when nothing fails \
(warnings are printed), 1 when something does.

Examples:
  kubectl -n argocd exec deployment/argocd-repo-server -c ecr-sidecar -- ecr-sidecar doctor --consumer 999:999
  ecr-sidecar doctor --registries 123456789012.dkr.ecr.eu-west-1.amazonaws.com --docker-config ./config.json
  ecr-sidecar doctor --image 123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1.2.3 --as-consumer kubelet
  ecr-sidecar doctor --output json";

pub(super) const STATUS: &str = "Exit status: 0, or 1 when no sidecar answers.

Examples:
  kubectl -n argocd exec deployment/argocd-repo-server -c ecr-sidecar -- ecr-sidecar status
  ecr-sidecar status --watch
  ecr-sidecar status --output json";

pub(super) const PRINT: &str =
    "It takes at most 9 seconds. Exit status: 0, 69 when no credential is available, 64 for an invalid \
configuration or host.

Examples:
  ecr-sidecar print 123456789012.dkr.ecr.eu-west-1.amazonaws.com
  ecr-sidecar print public.ecr.aws | cut -d: -f2- | crane auth login public.ecr.aws -u AWS --password-stdin";

pub(super) const KUBELET_CREDENTIAL_PROVIDER: &str =
    "The kubelet runs it for each image that its CredentialProviderConfig matches; patches/kubelet has one. \
Exit status: 0, also for an image of another registry, without a credential; 1 with the reason on standard error.

Examples:
  echo '{\"apiVersion\": \"credentialprovider.kubelet.k8s.io/v1\", \"kind\": \"CredentialProviderRequest\",
    \"image\": \"123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1.0\"}' > request.json
  ecr-sidecar kubelet-credential-provider --config /etc/ecr-sidecar/config.yaml < request.json
  ecr-sidecar kubelet-credential-provider --role-annotation example.com/ecr-role < request.json
  ecr-sidecar kubelet-credential-provider --install /var/lib/rancher/credentialprovider/bin";

pub(super) const MANIFESTS: &str = "Exit status: 0, or 64 for an invalid configuration.

Examples:
  ecr-sidecar manifests --docker-config-secret ecr-credentials --registries public.ecr.aws \\
    --namespace flux-system --service-account image-reflector-controller | kubectl apply -f -
  ecr-sidecar manifests --config config.yaml --namespace ecr-sidecar --service-account ecr-sidecar
  ecr-sidecar manifests --config config.yaml --namespace ecr-sidecar --service-account ecr-sidecar --pod-pull-secrets";

pub(super) const CONFIG: &str = "Exit status: 0, or 64 and every problem of the configuration.

Examples:
  ecr-sidecar config --config config.yaml
  ecr-sidecar config --schema > config.schema.json";

pub(super) const COMPLETIONS: &str = "Examples:
  ecr-sidecar completions bash > ~/.local/share/bash-completion/completions/ecr-sidecar
  ecr-sidecar completions zsh > ~/.zfunc/_ecr-sidecar
  ecr-sidecar completions fish > ~/.config/fish/completions/ecr-sidecar.fish";

pub(super) const MAN: &str = "Examples:
  ecr-sidecar man > ~/.local/share/man/man1/ecr-sidecar.1
  ecr-sidecar man | man -l -";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::arguments::Cli;

    /// The command lines of this program among the examples: a line that ends with `\` goes on.
    fn command_lines(help: &str) -> Vec<Vec<String>> {
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_default();
        let indented = examples.split("\n\n").next().unwrap_or_default().replace("\\\n", "");
        let of_this_program = |line: &str| {
            // Behind variables, or behind the `--` of `kubectl exec`; up to a pipe, a redirection or the next command.
            let line = line.rsplit(" -- ").next()?;
            let words = line.split_whitespace().skip_while(|word| word.contains('='));
            let words: Vec<_> = words.take_while(|word| !["|", ">", "<", "&&"].contains(word)).collect();
            (words.first() == Some(&"ecr-sidecar")).then(|| words.into_iter().map(str::to_owned).collect())
        };
        indented.lines().filter_map(of_this_program).collect()
    }

    #[test]
    fn the_parser_takes_each_example() {
        let all = Cli::command();
        let helps = std::iter::once(&all).chain(all.get_subcommands());
        for command in helps {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines = command_lines(&help);
            assert!(!lines.is_empty(), "{name}: no example");
            for line in lines {
                Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{name}: {line:?}: {error}"));
                assert!(name == all.get_name() || line[1] == name, "{name}: {line:?} is of another");
            }
        }
    }
}
