//! Where a program listens: on `PORT`, or on a number of its own.

use std::path::Path;

use super::Found;
use super::project::{folder_of, join, text};

/// Most files and folders of one program that are looked at.
const MOST: usize = 200;
const SOURCES: &[&str] = &[".js", ".mjs", ".cjs", ".ts", ".go", ".rs", ".py", ".rb"];
const READS: &[&str] = &[
    "process.env.PORT",
    "process.env[\"PORT\"]",
    "Getenv(\"PORT\")",
    "env::var(\"PORT\")",
    "env(\"PORT\")",
    "var_os(\"PORT\")",
    "environ[\"PORT\"]",
    "environ['PORT']",
    "environ.get(\"PORT\"",
    "environ.get('PORT'",
    "getenv(\"PORT\"",
    "ENV[\"PORT\"]",
    "ENV.fetch(\"PORT\"",
];
const LISTENS: &[&str] =
    &["listen(", "ListenAndServe(\":", "Listen(\"tcp\", \":", "0.0.0.0:", "127.0.0.1:", "localhost:"];

/// Looks through the sources in `folder`: notes that `PORT` is read, or the fixed port that is found.
pub(super) fn find(root: &Path, folder: &str, found: &mut Found) {
    let mut fixed = None;
    for file in sources(root, folder) {
        let Some(text) = text(root, &file) else { continue };
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
            if READS.iter().any(|read| line.contains(read)) {
                found.because.push(format!("it reads PORT ({file}:{})", index + 1));
                found.serves = true;
                return;
            }
            if let (None, Some(port)) = (&fixed, fixed_port(line)) {
                fixed = Some((port, file.clone(), index + 1));
            }
        }
    }
    if let Some((port, file, line)) = fixed {
        found.because.push(format!("it listens on {port} by itself ({file}:{line})"));
        found.port = Some(port);
        found.serves = true;
    }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") || line.starts_with('#') || line.starts_with('*')
}

/// The port in `listen(3000)`, `ListenAndServe(":8080", …)` and the like.
fn fixed_port(line: &str) -> Option<u16> {
    if !line.contains("isten") && !line.contains("bind") {
        return None;
    }
    LISTENS.iter().find_map(|words| {
        let (_, rest) = line.split_once(words)?;
        let digits: String =
            rest.trim_start_matches(['"', '\'', ':']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|port| *port > 0)
    })
}

fn sources(root: &Path, folder: &str) -> Vec<String> {
    let mut waiting = vec![folder.to_owned()];
    let mut files = Vec::new();
    let mut seen = 0;
    while let Some(folder) = waiting.pop() {
        let entries = std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten();
        let mut names: Vec<(String, bool)> = entries
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.file_type().ok()?.is_dir())))
            .filter(|(name, _)| !name.starts_with('.'))
            .collect();
        names.sort();
        for (name, is_dir) in names {
            seen += 1;
            if seen > MOST {
                return files;
            }
            let path = join(&folder, &name);
            if is_dir && !["node_modules", "target", "vendor", "dist", "test", "tests"].contains(&name.as_str()) {
                // What has a project file of its own is another program.
                let own =
                    ["package.json", "go.mod", "Cargo.toml"].iter().any(|file| root.join(&path).join(file).is_file());
                if !own {
                    waiting.push(path);
                }
            } else if SOURCES.iter().any(|end| name.ends_with(end)) {
                files.push(path);
            }
        }
    }
    files.sort_by_key(|file| (folder_of(file).len(), file.clone()));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_port_is_read_off_the_call_that_listens() {
        assert_eq!(fixed_port("app.listen(3000, () => {})"), Some(3000));
        assert_eq!(fixed_port("http.ListenAndServe(\":8080\", nil)"), Some(8080));
        assert_eq!(fixed_port("TcpListener::bind(\"127.0.0.1:9000\")"), Some(9000));
        assert_eq!(fixed_port("app.listen(port)"), None);
        assert_eq!(fixed_port("fetch(\"http://localhost:3000\")"), None);
    }
}
