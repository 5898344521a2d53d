package main

import (
	"context"
	"flag"
	"net/http"
	"os"

	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// orasClient is Argo CD's repo-server with an oci:// source: username and password of a repository Secret, bare, as
// one static credential, and a cache for no token.
func orasClient(ctx context.Context, flags *flag.FlagSet, arguments []string) (any, error) {
	username := flags.String("username", "", "the user")
	passwordFile := flags.String("password-file", "", "a file with the password, and nothing else")
	reference := flags.String("ref", "", "the image or chart, with a tag")
	tags := flags.Bool("tags", false, "list the tags")
	if err := parse(flags, arguments, "ref"); err != nil {
		return nil, err
	}
	var password []byte
	if *passwordFile != "" {
		var err error
		if password, err = os.ReadFile(*passwordFile); err != nil {
			return nil, err
		}
	}
	repository, err := remote.NewRepository(*reference)
	if err != nil {
		return nil, err
	}
	credentials := auth.Credential{Username: *username, Password: string(password)}
	repository.Client = &auth.Client{
		Client:     &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}},
		Credential: auth.StaticCredential(repository.Reference.Registry, credentials),
	}
	result := struct {
		credential
		Tags   []string `json:"tags,omitempty"`
		Digest string   `json:"digest"`
	}{credential: credentialOf(*username, string(password))}
	descriptor, err := repository.Resolve(ctx, repository.Reference.ReferenceOrDefault())
	if err != nil {
		return nil, err
	}
	result.Digest = descriptor.Digest.String()
	if *tags {
		err = repository.Tags(ctx, "", func(page []string) error {
			result.Tags = append(result.Tags, page...)
			return nil
		})
	}
	return result, err
}
