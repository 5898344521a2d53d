package main

import (
	"context"
	"flag"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is one namespace as its kubeconfig's user may see it.
type cluster struct {
	kubeconfig, namespace string
}

func (c *cluster) flags(flags *flag.FlagSet) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "the file")
	flags.StringVar(&c.namespace, "namespace", "", "where the Secrets are")
}

func (c *cluster) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func (c *cluster) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return client.CoreV1().Secrets(c.namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c *cluster) labelled(ctx context.Context, selector string) ([]corev1.Secret, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Secrets(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// pullSecrets are those of a service account; one that is missing is an error, as it is for Flux.
func (c *cluster) pullSecrets(ctx context.Context, serviceAccount string) ([]corev1.Secret, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	account, err := client.CoreV1().ServiceAccounts(c.namespace).Get(ctx, serviceAccount, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var secrets []corev1.Secret
	for _, reference := range account.ImagePullSecrets {
		secret, err := c.secret(ctx, reference.Name)
		if err != nil {
			return nil, fmt.Errorf("an imagePullSecret of %s: %w", serviceAccount, err)
		}
		secrets = append(secrets, *secret)
	}
	return secrets, nil
}
