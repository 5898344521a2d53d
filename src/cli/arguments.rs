//! The command line: commands, flags and their help.
//!
//! Every command shows examples, and the parser takes each of them (`examples`).

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::{examples, kubelet_provider::RoleRules};
use crate::{
    cli::status::Format,
    config::{Flags, variable},
    doctor::{Consumer, Puller},
    output::secret_settings::{NamespaceName, ObjectName},
    pull::ImageRef,
    registry::RegistryHost,
    units::parse_duration,
};

/// Keeps Amazon ECR credentials fresh in the place the main container reads them.
#[derive(Debug, Parser)]
#[command(name = "ecr-sidecar", version = env!("BUILD_VERSION"), after_help = examples::ALL)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) values: Values,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Default, Args)]
pub(super) struct Values {
    /// The configuration file [env: ECR_SIDECAR_CONFIG] [default: none]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<String>,
    /// Registry hosts, comma-separated [env: ECR_SIDECAR_REGISTRIES] [default: the caller's own in AWS_REGION]
    #[arg(long, global = true, value_name = "HOSTS")]
    registries: Option<String>,
    /// The docker config.json to keep [env: ECR_SIDECAR_DOCKER_CONFIG] [default: /var/run/ecr-sidecar/config.json, or none with other outputs]
    #[arg(long, global = true, value_name = "FILE")]
    docker_config: Option<String>,
    /// Its mode, octal [env: ECR_SIDECAR_FILE_MODE] [default: 0640]
    #[arg(long, global = true, value_name = "MODE")]
    file_mode: Option<String>,
    /// Secrets that hold a docker config, comma-separated NAME or NAMESPACE/NAME [env: ECR_SIDECAR_DOCKER_CONFIG_SECRET] [default: none]
    #[arg(long, global = true, value_name = "SECRETS")]
    docker_config_secret: Option<String>,
    /// Keep Argo CD's credential templates in this namespace [env: ECR_SIDECAR_ARGOCD_NAMESPACE] [default: none]
    #[arg(long, global = true, value_name = "NAMESPACE")]
    argocd_namespace: Option<String>,
    /// Address of the health endpoint [env: ECR_SIDECAR_HEALTH_LISTEN] [default: 127.0.0.1:9808]
    #[arg(long, global = true, value_name = "ADDRESS")]
    health_listen: Option<String>,
    /// json or text [env: ECR_SIDECAR_LOG_FORMAT] [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A level, or target=level pairs [env: ECR_SIDECAR_LOG] [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

impl Values {
    pub(super) fn into_flags(self) -> Flags {
        let values = [
            (variable::CONFIG, self.config),
            (variable::REGISTRIES, self.registries),
            (variable::DOCKER_CONFIG, self.docker_config),
            (variable::FILE_MODE, self.file_mode),
            (variable::DOCKER_CONFIG_SECRET, self.docker_config_secret),
            (variable::ARGOCD_NAMESPACE, self.argocd_namespace),
            (variable::HEALTH_LISTEN, self.health_listen),
            (variable::LOG_FORMAT, self.log_format),
            (variable::LOG, self.log),
        ];
        Flags(values.into_iter().filter_map(|(variable, value)| Some((variable, value?))).collect())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Keep every output fresh until SIGTERM (the default)
    #[command(after_help = examples::RUN)]
    Run,
    /// Refresh once, write every output, end
    #[command(after_help = examples::ONCE)]
    Once {
        /// Give up after this time
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Ask the running sidecar: an exec probe
    #[command(after_help = examples::HEALTH)]
    Health {
        /// What to ask
        #[arg(value_enum, default_value_t = Question::Live)]
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
        /// Who reads the docker config.json: a user, and perhaps its groups
        #[arg(long, value_name = "UID[:GID,...]")]
        consumer: Option<Consumer>,
        /// Also pull this image with the published credential: tags, manifest, first layer
        #[arg(long, value_name = "HOST/REPOSITORY[:TAG]")]
        image: Option<ImageRef>,
        /// Only with the steps of this program [default: of all of them]
        #[arg(long, value_enum, requires = "image")]
        as_consumer: Option<Puller>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
        output: ReportFormat,
    },
    /// Show every registry and output of the running sidecar
    #[command(after_help = examples::STATUS)]
    Status {
        /// Draw it again each second; in a pipe: a block a second, with an empty line between two
        #[arg(long)]
        watch: bool,
        /// For people, or what /status answers
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Print AWS:PASSWORD of one registry, from the local file or else from AWS
    #[command(after_help = examples::PRINT)]
    Print {
        /// The registry
        #[arg(value_name = "HOST")]
        host: RegistryHost,
    },
    /// Give the kubelet credentials for its pulls: its exec protocol, on standard input and output
    #[command(after_help = examples::KUBELET_CREDENTIAL_PROVIDER)]
    KubeletCredentialProvider {
        #[command(flatten)]
        rules: RoleRules,
        /// Instead, copy this program into the kubelet's --image-credential-provider-bin-dir, if another one is there
        #[arg(long, value_name = "FOLDER", conflicts_with_all = ["role_annotation", "role_arn"])]
        install: Option<PathBuf>,
    },
    /// Print the rights and the empty Secrets that the Kubernetes outputs need, for `kubectl apply -f -`
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_flag_is_named_like_its_variable() {
        let command = Cli::command();
        let flags: Vec<_> =
            command.get_arguments().filter_map(|flag| Some((flag.get_long()?, flag.get_help()?))).collect();
        assert_eq!(flags.len(), 9);
        for (flag, help) in flags {
            let variable = format!("ECR_SIDECAR_{}", flag.to_uppercase().replace('-', "_"));
            assert!(help.to_string().contains(&format!("[env: {variable}]")), "{flag}: {help}");
            let given =
                Cli::try_parse_from(["ecr-sidecar", &format!("--{flag}"), "x"]).unwrap().values.into_flags();
            assert_eq!(given.0.get(&*variable).map(String::as_str), Some("x"), "{flag}");
        }
    }
}
