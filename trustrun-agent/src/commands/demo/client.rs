//! What makes the requests: a program that people know, or a small one of our own on a machine that has none.

use std::path::Path;

use clap::ValueEnum;

use super::scenes::{POLICY_FILE, Scene};

/// Columns, with room for an indentation and a backslash.
const WIDTH: usize = 94;

/// A program that fetches URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    /// curl.
    Curl,
    /// Python's own urllib.
    Python3,
    /// `trustrun demo-fetch`: plain HTTP only.
    Own,
}

/// The script that python3 runs, and its name on the stage.
pub(super) const SCRIPT_FILE: &str = "fetch.py";
pub(super) const SCRIPT: &str = r#"import sys
import urllib.request as web

urls = sys.argv[1:]
proxies = {}
if urls[0] == "--proxy":
    proxies = {"http": urls[1]}
    urls = urls[2:]
opener = web.build_opener(web.ProxyHandler(proxies))
failed = 0
for url in urls:
    try:
        print(opener.open(url, timeout=5).read().decode(), end="", flush=True)
    except OSError as error:
        print(f"fetch.py: {url}: {error}", file=sys.stderr)
        failed = 1
sys.exit(failed)
"#;

impl Client {
    /// The best that this machine has.
    pub(super) fn first_found() -> Self {
        match () {
            () if trustrun_lab::have("curl") => Self::Curl,
            () if trustrun_lab::have("python3") => Self::Python3,
            () => Self::Own,
        }
    }

    /// The command of a scene.
    pub(super) fn command(self, scene: &Scene, trustrun: &Path) -> Vec<String> {
        let trustrun = trustrun.to_string_lossy();
        let (start, proxy): (&[&str], &str) = match self {
            Self::Curl => (&["curl", "-sS"], "-x"),
            Self::Python3 => (&["python3", SCRIPT_FILE], "--proxy"),
            Self::Own => (&[&trustrun, "demo-fetch"], "--proxy"),
        };
        let mut words: Vec<String> = start.iter().map(|&word| word.into()).collect();
        words.extend(scene.proxy.into_iter().flat_map(|url| [proxy.into(), url.into()]));
        words.extend(scene.urls.iter().map(|&url| match self {
            Self::Own => url.replacen("https:", "http:", 1),
            _ => url.into(),
        }));
        words
    }

    /// The whole line, as a person would type it: broken where it is wider than a page.
    pub(super) fn typed(self, scene: &Scene) -> String {
        let mut text = format!("$ trustrun run --policy {POLICY_FILE} --");
        let mut column = text.len();
        for word in self.command(scene, Path::new("trustrun")) {
            if column + 1 + word.len() > WIDTH {
                text.push_str(" \\\n     ");
                column = 5;
            }
            text.push(' ');
            text.push_str(&word);
            column += 1 + word.len();
        }
        text
    }

    /// A command to try after the demo, with the network that this machine really has.
    pub(super) fn try_this(self) -> &'static str {
        match self {
            Self::Curl => "curl -sS https://example.com",
            Self::Python3 => "python3 -c \"import urllib.request as u; u.urlopen('https://example.com')\"",
            Self::Own => "apt-get update",
        }
    }
}
