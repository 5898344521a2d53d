# The role of ecr-sidecar in the account of the registry. It may pull and list tags, and nothing else. Its policies are
# those of the JSON files in the parent folder, with your values.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "account_id" {
  type        = string
  description = "The account of the registry and of the role."
  default     = "123456789012"
}

variable "region" {
  type        = string
  description = "The region of the registry."
  default     = "eu-west-1"
}

variable "repositories" {
  type        = string
  description = "The repositories to pull from: a name, or a pattern such as apps/*."
  default     = "*"
}

variable "oidc_issuer" {
  type        = string
  description = "The issuer of the cluster's tokens, without https://. It must be an IAM OIDC provider of the account."
  default     = "oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
}

variable "service_accounts" {
  type        = list(string)
  description = "The service accounts that may assume the role, as NAMESPACE:NAME."
  default     = ["flux-system:image-reflector-controller", "argocd:argocd-repo-server"]
}

locals {
  pull_policy = {
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Token"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*"
      },
      {
        Sid    = "Pull"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability",
          "ecr:BatchGetImage",
          "ecr:GetDownloadUrlForLayer",
          "ecr:ListImages", # for listing tags: Flux's image-reflector-controller, version ranges of charts
        ]
        Resource = "arn:aws:ecr:${var.region}:${var.account_id}:repository/${var.repositories}"
      },
    ]
  }

  # For a pull-through cache, as a second aws_iam_role_policy: jsonencode(local.pull_through_cache_policy).
  pull_through_cache_policy = {
    Version = "2012-10-17"
    Statement = [{
      Sid      = "PullThroughCache"
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = "arn:aws:ecr:${var.region}:${var.account_id}:repository/docker-hub/*"
    }]
  }

  trust_irsa = {
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = "arn:aws:iam::${var.account_id}:oidc-provider/${var.oidc_issuer}" }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "${var.oidc_issuer}:aud" = "sts.amazonaws.com"
          "${var.oidc_issuer}:sub" = [for account in var.service_accounts : "system:serviceaccount:${account}"]
        }
      }
    }]
  }

  # For EKS Pod Identity: assume_role_policy = jsonencode(local.trust_pod_identity), and an
  # aws_eks_pod_identity_association of cluster, namespace and service account.
  trust_pod_identity = {
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }]
  }
}

resource "aws_iam_role" "ecr_pull" {
  name               = "ecr-pull"
  assume_role_policy = jsonencode(local.trust_irsa)
}

resource "aws_iam_role_policy" "ecr_pull" {
  name   = "ecr-pull"
  role   = aws_iam_role.ecr_pull.id
  policy = jsonencode(local.pull_policy)
}

output "role_arn" {
  description = "roleArn of settings.yaml, or the annotation eks.amazonaws.com/role-arn."
  value       = aws_iam_role.ecr_pull.arn
}
