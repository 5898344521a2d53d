//! `completions` and `man`, by the shells and the typesetter that read them.

use std::{io::Write, path::Path, process::Command};

use test_support::{clean_command, output, program};

use super::{BINARY, DEADLINE, printed, sidecar};

const COMMANDS: [&str; 12] = [
    "run",
    "once",
    "health",
    "wait",
    "doctor",
    "status",
    "print",
    "kubelet-credential-provider",
    "manifests",
    "config",
    "completions",
    "man",
];

/// `command` with our program first on its path.
fn beside_the_program(command: &str) -> Command {
    let mut command = clean_command(command, Path::new("/nonexistent"));
    let folder = Path::new(BINARY).parent().unwrap().display();
    command.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap()));
    command
}

/// What a terminal shows when `keys` are typed into an interactive `shell`.
fn typed(shell: &str, keys: &str) -> Option<String> {
    program("script")?;
    let mut bash = beside_the_program("bash");
    // What a shell asks of a terminal of its own; keys come from a pipe.
    bash.args(["-c", "printf %b \"$KEYS\" | script --quiet --return --command \"$0\" /dev/null", shell]);
    Some(printed(&output(bash.env("KEYS", keys).env("TERM", "dumb"), DEADLINE)))
}

/// A flag of a command is completed and the command works: what it prints is nowhere in what was typed.
#[track_caller]
fn completes(shell: &str, load: &str) {
    let shown = typed(shell, &format!("{load}\\necr-sidecar config --sch\\t\\nexit\\n"));
    let Some(shown) = shown else { return };
    assert!(shown.contains("json-schema.org"), "{shown}");
}

#[test]
fn bash_completes_flags_behind_a_command() {
    completes("bash --norc --noprofile -i", "source <(ecr-sidecar completions bash)");
}

#[test]
fn zsh_completes_flags_behind_a_command() {
    if program("zsh").is_some() {
        completes("zsh -f -i", "autoload -U compinit; compinit -u -D; source <(ecr-sidecar completions zsh)");
    }
}

#[test]
fn fish_completes_flags_behind_a_command_and_shows_what_they_do() {
    if program("fish").is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut fish = beside_the_program("fish");
    fish.env("HOME", home.path());
    let script = "ecr-sidecar completions fish | source; complete -C 'ecr-sidecar once --time'";
    let shown = printed(&output(fish.args(["--no-config", "-c", script]), DEADLINE));
    assert_eq!(shown, "--timeout\tGive up after this time\n");
}

#[test]
fn the_other_shells_have_a_script_with_every_command() {
    for shell in ["elvish", "powershell"] {
        let script = printed(&sidecar(&["completions", shell]));
        for command in COMMANDS {
            assert!(script.contains(&format!("'ecr-sidecar;{command}'")), "{shell}: {command}");
        }
    }
}

#[test]
fn the_manual_page_is_one_that_the_typesetter_takes_without_a_warning() {
    if program("groff").is_none() {
        return;
    }
    let mut page = tempfile::NamedTempFile::new().unwrap();
    page.write_all(printed(&sidecar(&["man"])).as_bytes()).unwrap();
    let mut groff = clean_command("groff", Path::new("/nonexistent"));
    groff.args(["-man", "-Tascii", "-P-cbou", "-ww"]).arg(page.path()); // -P: neither colour nor overstriking
    let set = output(&mut groff, DEADLINE);
    assert_eq!(String::from_utf8_lossy(&set.stderr), "");
    let text = printed(&set);
    for heading in ["NAME", "SYNOPSIS", "COMMANDS", "OPTIONS", "EXAMPLES", "SEE ALSO"] {
        assert!(text.lines().any(|line| line == heading), "{heading}:\n{text}");
    }
    for command in COMMANDS {
        assert!(text.lines().any(|line| line == format!("   {command}")), "{command}:\n{text}");
        let help = printed(&sidecar(&[command, "--help"]));
        let examples = help.split_once("Examples:\n").unwrap().1;
        // Whole lines, as they would be typed.
        for example in examples.lines() {
            assert!(text.lines().any(|line| line.trim() == example.trim()), "{example}:\n{text}");
        }
    }
    assert!(text.contains("--consumer <UID[:GID,...]>"), "{text}");
}

#[test]
fn every_command_is_tested_here() {
    let help = printed(&sidecar(&["--help"]));
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let named: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(named, [&COMMANDS[..], &["help"]].concat());
}
