package main

import (
	"context"
	"flag"
	"net/url"
	"os"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const secretType = "argocd.argoproj.io/secret-type="

// What makes a repository Secret one with credentials of its own, so that no template is looked for.
var ownCredentials = []string{"username", "password", "sshPrivateKey", "tlsClientCertData", "githubAppPrivateKey"}

// argocdMatch is Argo CD looking for the credentials of a source (its rules, not its code: it can't be imported).
//
// First the `repository` Secret of the same URL: that of the Application's project, else one of no project. When
// that has as much as a username, it is the answer; else the `repo-creds` template whose URL is the longest prefix.
func argocdMatch(ctx context.Context, flags *flag.FlagSet, arguments []string) (any, error) {
	var from cluster
	from.flags(flags)
	source := flags.String("url", "", "an Application's repoURL")
	project := flags.String("project", "default", "an Application's project")
	passwordTo := flags.String("password-to", "", "a file to write the password to")
	if err := parse(flags, arguments, "kubeconfig", "namespace", "url"); err != nil {
		return nil, err
	}
	repositories, err := from.labelled(ctx, secretType+"repository")
	if err != nil {
		return nil, err
	}
	templates, err := from.labelled(ctx, secretType+"repo-creds")
	if err != nil {
		return nil, err
	}
	found := repositoryOf(repositories, *source, *project)
	if found == nil || !hasCredentials(found) {
		found = templateOf(templates, *source)
	}
	if found == nil {
		return struct{}{}, nil
	}
	if *passwordTo != "" {
		if err := os.WriteFile(*passwordTo, found.Data["password"], 0o600); err != nil {
			return nil, err
		}
	}
	return struct {
		Secret    string `json:"secret"`
		Type      string `json:"type"`
		EnableOCI string `json:"enableOCI,omitempty"`
		credential
	}{
		Secret:     found.Name,
		Type:       string(found.Data["type"]),
		EnableOCI:  string(found.Data["enableOCI"]),
		credential: credentialOf(string(found.Data["username"]), string(found.Data["password"])),
	}, nil
}

func repositoryOf(secrets []corev1.Secret, source, project string) *corev1.Secret {
	var ofNoProject *corev1.Secret
	for i := range secrets {
		secret := &secrets[i]
		if !sameURL(string(secret.Data["url"]), source) {
			continue
		}
		switch string(secret.Data["project"]) {
		case project:
			return secret
		case "":
			ofNoProject = secret
		}
	}
	return ofNoProject
}

func hasCredentials(secret *corev1.Secret) bool {
	for _, key := range ownCredentials {
		if len(secret.Data[key]) > 0 {
			return true
		}
	}
	return false
}

// templateOf prefers, of templates with URLs of one length, the first.
func templateOf(secrets []corev1.Secret, source string) *corev1.Secret {
	var best *corev1.Secret
	longest, wanted := 0, normalized(source)
	for i := range secrets {
		prefix := normalized(string(secrets[i].Data["url"]))
		if strings.HasPrefix(wanted, prefix) && len(prefix) > longest {
			best, longest = &secrets[i], len(prefix)
		}
	}
	return best
}

// sameURL compares what can't be parsed as it is written.
func sameURL(left, right string) bool {
	for _, side := range []*string{&left, &right} {
		if parsed := normalized(*side); parsed != "" {
			*side = parsed
		}
	}
	return left == right && left != ""
}

var userAtHost = regexp.MustCompile(`^(ssh://)?[^/:]*@[^@]+$`)

// normalized is empty for what is no URL. It drops case, blanks, a last ".git", and what tells the two ways to write
// an SSH URL apart; any other scheme stays, and counts.
func normalized(written string) string {
	written = strings.ToLower(strings.TrimSpace(written))
	if userAtHost.MatchString(written) && !strings.HasPrefix(written, "ssh://") {
		written = "ssh://" + strings.Replace(written, ":", "/", 1)
	}
	parsed, err := url.Parse(strings.TrimSuffix(written, ".git"))
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(parsed.String(), "ssh://")
}
