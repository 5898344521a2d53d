package main

import (
	"context"
	"flag"

	"github.com/google/go-containerregistry/pkg/authn"
	kauth "github.com/google/go-containerregistry/pkg/authn/kubernetes"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
)

// keychain is Flux's image-reflector-controller with an ImageRepository: spec.secretRef, then the imagePullSecrets
// of spec.serviceAccountName, make a keychain; with neither, it asks without credentials. --tags is its scan,
// --pull what an ImagePolicy that reflects digests asks for.
func keychain(ctx context.Context, flags *flag.FlagSet, arguments []string) (any, error) {
	var from cluster
	from.flags(flags)
	secret := flags.String("secret", "", "spec.secretRef")
	account := flags.String("service-account", "", "spec.serviceAccountName")
	image := flags.String("image", "", "spec.image, with a tag for --pull")
	tags := flags.Bool("tags", false, "list the tags")
	pull := flags.Bool("pull", false, "get the manifest")
	if err := parse(flags, arguments, "kubeconfig", "namespace", "image"); err != nil {
		return nil, err
	}
	reference, err := name.ParseReference(*image)
	if err != nil {
		return nil, err
	}
	secrets, err := from.secretsOfImageRepository(ctx, *secret, *account)
	if err != nil {
		return nil, err
	}
	chain, err := keychainOf(ctx, secrets)
	if err != nil {
		return nil, err
	}
	result := struct {
		credential
		Tags   []string `json:"tags,omitempty"`
		Digest string   `json:"digest,omitempty"`
	}{}
	if result.credential, err = resolve(chain, reference); err != nil {
		return nil, err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(chain)}
	if *tags {
		if result.Tags, err = remote.List(reference.Context(), options...); err != nil {
			return nil, err
		}
	}
	if *pull {
		manifest, err := remote.Get(reference, options...)
		if err != nil {
			return nil, err
		}
		result.Digest = manifest.Digest.String()
	}
	return result, nil
}

func (c *cluster) secretsOfImageRepository(ctx context.Context, ref, account string) ([]corev1.Secret, error) {
	var secrets []corev1.Secret
	if ref != "" {
		secret, err := c.secret(ctx, ref)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, *secret)
	}
	if account != "" {
		more, err := c.pullSecrets(ctx, account)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, more...)
	}
	return secrets, nil
}

func keychainOf(ctx context.Context, secrets []corev1.Secret) (authn.Keychain, error) {
	if len(secrets) == 0 {
		return authn.NewMultiKeychain(), nil
	}
	return kauth.NewFromPullSecrets(ctx, secrets)
}

func resolve(chain authn.Keychain, reference name.Reference) (credential, error) {
	authenticator, err := chain.Resolve(reference.Context())
	if err != nil {
		return credential{}, err
	}
	config, err := authenticator.Authorization()
	if err != nil {
		return credential{}, err
	}
	return credentialOf(config.Username, config.Password), nil
}
