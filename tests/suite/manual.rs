//! `rtpt manual` and `rtpt completions`.

use std::fs;
use std::process::Command;

use crate::program::Bench;

#[test]
fn there_is_a_page_for_every_command() {
    let bench = Bench::new();
    let run = bench.rtpt(&["manual", "pages/man1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let help = bench.rtpt(&["--help"]).stdout;
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() > 12 && names.contains(&"doctor"), "{names:?}");
    for name in names.iter().filter(|name| **name != "help") {
        let page = fs::read_to_string(bench.path(&format!("pages/man1/rtpt-{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains(".SH NAME") && page.contains(r"\-\-help"), "{name}: {page}");
    }
    let whole = fs::read_to_string(bench.path("pages/man1/rtpt.1")).unwrap();
    assert!(whole.contains(".SH \"EXIT CODES\"\n.nf\n") && !whole.contains("EXTRA"), "{whole}");
    let serve = fs::read_to_string(bench.path("pages/man1/rtpt-serve.1")).unwrap();
    assert!(serve.contains(".SH \"EXAMPLES\"\n.nf\n\\&  rtpt serve \\-\\-source"), "{serve}");
    bench.write("file", b"");
    bench.rtpt(&["manual", "file"]).fails_with(1, &["file is a file, expected a folder"]);
}

#[test]
fn shells_complete_what_is_begun() {
    let bench = Bench::new();
    for (shell, mark) in [("bash", "complete -F"), ("zsh", "#compdef rtpt"), ("fish", "complete -c rtpt")] {
        let run = bench.rtpt(&["completions", shell]);
        assert!(run.code == 0 && run.stdout.contains(mark), "{shell}: {}", run.stderr);
    }
    bench.rtpt(&["completions", "cmd"]).fails_with(2, &["possible values"]);
    bench.write("rtpt.bash", bench.rtpt(&["completions", "bash"]).stdout.as_bytes());
    let complete = |words: &str, last: usize| {
        let script = format!(
            "source ./rtpt.bash; COMP_WORDS=({words}); COMP_CWORD={last}; _rtpt rtpt \"${{COMP_WORDS[{last}]}}\" \"\"; \
             echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(bench.path("")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(complete("rtpt doc", 1), ["doctor"]);
    assert!(complete("rtpt classify --meth", 2).contains(&"--method".to_string()));
}
