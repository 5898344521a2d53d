//! The flags and the variables: each pair, once.

/// A value that a flag or a variable sets, over the configuration file.
///
/// `cli::arguments` makes its parser from these. The variables are read from [`Environment`](crate::env::Environment):
/// with its own `env`, clap would read those of the process, past the gate, and take an empty flag for a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Without its dashes.
    pub flag: &'static str,
    pub variable: &'static str,
    pub value_name: &'static str,
    pub help: &'static str,
    /// What holds without it, in words.
    pub default: &'static str,
}

pub const PREFIX: &str = "ECR_SIDECAR_";

pub const CONFIG: &Setting = &Setting {
    flag: "config",
    variable: "ECR_SIDECAR_CONFIG",
    value_name: "FILE",
    help: "The configuration file",
    default: "none",
};

pub const REGISTRIES: &Setting = &Setting {
    flag: "registries",
    variable: "ECR_SIDECAR_REGISTRIES",
    value_name: "HOSTS",
    help: "Registry hosts, comma-separated",
    default: "the caller's own registry in AWS_REGION",
};

pub const DOCKER_CONFIG: &Setting = &Setting {
    flag: "docker-config",
    variable: "ECR_SIDECAR_DOCKER_CONFIG",
    value_name: "FILE",
    help: "The docker config.json to write",
    default: "/var/run/ecr-sidecar/config.json, or none with other outputs",
};

pub const FILE_MODE: &Setting = &Setting {
    flag: "file-mode",
    variable: "ECR_SIDECAR_FILE_MODE",
    value_name: "MODE",
    help: "The mode of that file, octal",
    default: "0640",
};

pub const DOCKER_CONFIG_SECRET: &Setting = &Setting {
    flag: "docker-config-secret",
    variable: "ECR_SIDECAR_DOCKER_CONFIG_SECRET",
    value_name: "SECRETS",
    help: "Secrets that hold a docker config, comma-separated NAME or NAMESPACE/NAME",
    default: "none",
};

pub const ARGOCD_NAMESPACE: &Setting = &Setting {
    flag: "argocd-namespace",
    variable: "ECR_SIDECAR_ARGOCD_NAMESPACE",
    value_name: "NAMESPACE",
    help: "Maintain Argo CD's credential templates in this namespace",
    default: "none",
};

pub const HEALTH_LISTEN: &Setting = &Setting {
    flag: "health-listen",
    variable: "ECR_SIDECAR_HEALTH_LISTEN",
    value_name: "ADDRESS",
    help: "Address of the health endpoint",
    default: "127.0.0.1:9808",
};

pub const LOG_FORMAT: &Setting = &Setting {
    flag: "log-format",
    variable: "ECR_SIDECAR_LOG_FORMAT",
    value_name: "FORMAT",
    help: "Log format, json or text",
    default: "text on a terminal, else json",
};

pub const LOG: &Setting = &Setting {
    flag: "log",
    variable: "ECR_SIDECAR_LOG",
    value_name: "FILTER",
    help: "Log filter, a level or target=level pairs",
    default: "info",
};

pub const ALL: [&Setting; 9] = [
    CONFIG,
    REGISTRIES,
    DOCKER_CONFIG,
    FILE_MODE,
    DOCKER_CONFIG_SECRET,
    ARGOCD_NAMESPACE,
    HEALTH_LISTEN,
    LOG_FORMAT,
    LOG,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_named_like_its_flag() {
        for setting in ALL {
            let of_flag = format!("{PREFIX}{}", setting.flag.to_uppercase().replace('-', "_"));
            assert_eq!(setting.variable, of_flag);
        }
    }
}
