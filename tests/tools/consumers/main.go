// Consumers of registry credentials, by the code that they themselves use: what do they find, and are they let in?
//
//	consumers keychain      --kubeconfig F --namespace N [--secret S] [--service-account A] --image REF [--tags] [--pull]
//	consumers docker-config (--file F | --kubeconfig F --namespace N --secret S) --host H
//	consumers argocd-match  --kubeconfig F --namespace N --url URL [--project P] [--password-to F]
//	consumers oras          [--username U --password-file F] --ref REF [--tags]
//
// Each prints one JSON object; never a password, but its SHA-256. It exits with 1 and a message where the
// consumer would report an error. Registries are asked through HTTPS_PROXY, with the authorities of SSL_CERT_FILE.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// How long one consumer may take, with its own retries.
const deadline = 60 * time.Second

var commands = map[string]func(context.Context, *flag.FlagSet, []string) (any, error){
	"keychain":      keychain,
	"docker-config": dockerConfig,
	"argocd-match":  argocdMatch,
	"oras":          orasClient,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "consumers:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 || commands[arguments[0]] == nil {
		return fmt.Errorf("which consumer? keychain, docker-config, argocd-match or oras")
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	result, err := commands[arguments[0]](ctx, flags, arguments[1:])
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// credential is what a consumer would send; both empty: it would ask without any.
type credential struct {
	Username       string `json:"username"`
	PasswordSHA256 string `json:"passwordSha256"`
}

func credentialOf(username, password string) credential {
	if password == "" {
		return credential{Username: username}
	}
	sum := sha256.Sum256([]byte(password))
	return credential{Username: username, PasswordSHA256: hex.EncodeToString(sum[:])}
}

// parse refuses arguments that belong to no flag, and empty values of the required ones.
func parse(flags *flag.FlagSet, arguments []string, required ...string) error {
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q?", flags.Arg(0))
	}
	for _, name := range required {
		if flags.Lookup(name).Value.String() == "" {
			return fmt.Errorf("--%s is missing", name)
		}
	}
	return nil
}
