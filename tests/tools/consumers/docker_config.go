package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"path/filepath"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	corev1 "k8s.io/api/core/v1"
)

// dockerConfig is the docker command line with a file, or Flux's source-controller with the Secret of a HelmRepository.
func dockerConfig(ctx context.Context, flags *flag.FlagSet, arguments []string) (any, error) {
	var from cluster
	from.flags(flags)
	file := flags.String("file", "", "a config.json")
	secret := flags.String("secret", "", "a Secret, instead of the file")
	host := flags.String("host", "", "the registry")
	if err := parse(flags, arguments, "host"); err != nil {
		return nil, err
	}
	parsed, err := from.load(ctx, *file, *secret)
	if err != nil {
		return nil, err
	}
	found, err := parsed.GetAuthConfig(*host)
	if err != nil {
		return nil, err
	}
	return credentialOf(found.Username, found.Password), nil
}

func (c *cluster) load(ctx context.Context, file, name string) (*configfile.ConfigFile, error) {
	if file != "" {
		if filepath.Base(file) != config.ConfigFileName {
			return nil, fmt.Errorf("docker reads no other file than a %s", config.ConfigFileName)
		}
		return config.Load(filepath.Dir(file))
	}
	secret, err := c.secret(ctx, name)
	if err != nil {
		return nil, err
	}
	if secret.Type != corev1.SecretTypeDockerConfigJson {
		return nil, fmt.Errorf("the Secret %s is of type %q", name, secret.Type)
	}
	return config.LoadFromReader(bytes.NewReader(secret.Data[corev1.DockerConfigJsonKey]))
}
