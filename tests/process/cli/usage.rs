//! What the parser of the command line rejects.

use super::sidecar;

#[test]
fn no_error_of_usage_repeats_a_credential() {
    for arguments in [
        ["print", "https://me:hunter2@123456789012.dkr.ecr.eu-west-1.amazonaws.com"],
        ["print", "hunter2wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
        ["doctor", "--consumer=me:hunter2@host"],
        ["doctor", "--image=me:hunter2@host/app"],
        ["doctor", "--image=host.example/hunter2wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
        ["once", "https://me:hunter2@host"],
        ["--health-listen", "http://me:hunter2@127.0.0.1"],
        ["--secret-key=hunter2wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "once"],
        ["eyJhunter2.e30.c2ln", "once"],
    ] {
        let output = sidecar(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.starts_with("error: ") || said.starts_with("ecr-sidecar: "), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let usual = sidecar(&["print", "ghcr.io"]);
    assert!(String::from_utf8_lossy(&usual.stderr).contains("ghcr.io"));
}
