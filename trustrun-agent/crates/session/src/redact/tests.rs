use proptest::prelude::*;

use super::*;

fn argv(words: &[&str]) -> Vec<String> {
    redact_argv(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
}

/// One argument becomes another.
fn one(word: &str) -> String {
    argv(&[word]).remove(0)
}

#[test]
fn switches_announce_secrets() {
    for name in
        ["--password", "--token", "--api-key", "--secret", "--client-secret", "-token", "--auth", "--oauth2-bearer"]
    {
        assert_eq!(argv(&["tool", name, "hunter2", "next"]), ["tool", name, MARK, "next"]);
        assert_eq!(argv(&["tool", &format!("{name}=hunter2")])[1], format!("{name}={MARK}"));
    }
    assert_eq!(argv(&["tool", "--password", "two words & more"])[2], MARK);
}

#[test]
fn switches_about_secrets_are_kept() {
    let kept = [
        ["t", "--password-file", "/run/secrets/db"],
        ["t", "--token-type", "jwt"],
        ["t", "--no-password", "host"],
        ["t", "--password", "--verbose"],
        ["t", "--max-tokens", "100"],
        ["t", "--author", "me"],
        ["t", "--key", "file.pem"],
        ["t", "--sort-key=name", "--bypass"],
        ["docker", "-u", "1000:1000"],
        ["python3", "-u", "server.py"],
        ["ssh", "-p", "2222"],
        ["git", "-c", "user.name=Me"],
        ["TOKENIZERS_PARALLELISM=false", "SSH_AUTH_SOCK=/tmp/s", "PASSWORD="],
        ["curl", "http://localhost:8080/a?b=c#d", "ssh://git@host/x"],
    ];
    for words in kept {
        assert_eq!(argv(&words), words);
    }
}

#[test]
fn logins_keep_their_user() {
    assert_eq!(
        argv(&["curl", "-u", "me:pw", "-U", "p:q", "x"]),
        ["curl", "-u", "me:[redacted]", "-U", "p:[redacted]", "x"]
    );
    assert_eq!(argv(&["curl", "-ume:p:w"])[1], "-ume:[redacted]");
    assert_eq!(argv(&["curl", "--user=me:pw"])[1], "--user=me:[redacted]");
    assert_eq!(argv(&["curl", "-u", "12:34"])[2], "12:[redacted]");
    assert_eq!(argv(&["smbclient", "-U", "dom/me%pw"])[2], "dom/me%[redacted]");
    assert_eq!(argv(&["curl", "-b", "session=1; id=2", "-bfoo=1"]), ["curl", "-b", MARK, "-b[redacted]"]);
}

#[test]
fn short_switches_of_known_tools() {
    assert_eq!(argv(&["mysql", "-uroot", "-phunter2", "db"]), ["mysql", "-uroot", "-p[redacted]", "db"]);
    assert_eq!(argv(&["sudo", "/usr/bin/mysqldump", "-p", "hunter2"])[3], MARK);
    assert_eq!(argv(&["sshpass", "-p", "hunter2", "ssh", "-p", "22"])[2], MARK);
    assert_eq!(argv(&["redis-cli", "-a", "hunter2"])[2], MARK);
    assert_eq!(argv(&["docker", "login", "-u", "me", "-p", "hunter2"])[5], MARK);
    assert_eq!(argv(&["ps", "-phunter2"])[1], "-phunter2");
}

#[test]
fn headers_keep_name_and_scheme() {
    assert_eq!(argv(&["curl", "-H", "Authorization: Bearer abc.def"])[2], "Authorization: Bearer [redacted]");
    assert_eq!(argv(&["curl", "-HX-Api-Key:abc"])[1], "-HX-Api-Key:[redacted]");
    assert_eq!(one("Cookie: a=\"b\"; c=d"), "Cookie: [redacted]");
    assert_eq!(one("proxy-authorization: xyz"), "proxy-authorization: [redacted]");
    assert_eq!(
        argv(&["t", "Authorization:", "Bearer", "abc", "next"]),
        ["t", "Authorization:", "Bearer", MARK, "next"]
    );
    assert_eq!(one("Accept: text/html"), "Accept: text/html");
}

#[test]
fn variables_and_data() {
    assert_eq!(
        argv(&["env", "PGPASSWORD=a b", "OPENAI_KEY=x", "HOME=/root"])[1..],
        ["PGPASSWORD=[redacted]", "OPENAI_KEY=[redacted]", "HOME=/root"]
    );
    assert_eq!(one("--env=AWS_SECRET_ACCESS_KEY=a/b+c="), "--env=AWS_SECRET_ACCESS_KEY=[redacted]");
    assert_eq!(one("user=me&password=pw&x=1"), "user=me&password=[redacted]&x=1");
    assert_eq!(
        one(r#"{"user": "me", "password": "p w", "n": 1}"#),
        r#"{"user": "me", "password": "[redacted]", "n": 1}"#
    );
    assert_eq!(one("Server=db;AccountKey=abc==;Port=1"), "Server=db;AccountKey=[redacted];Port=1");
    assert_eq!(one("import os; os.environ['TOKEN'] = 'abc'"), "import os; os.environ['TOKEN'] = '[redacted]'");
    assert_eq!(one("h={'Authorization': 'Bearer abc def'}; x"), "h={'Authorization': 'Bearer [redacted]'}; x");
}

#[test]
fn urls() {
    for (url, redacted) in [
        ("https://me:p@ss@h.org/x?q=1", "https://me:[redacted]@h.org/x?q=1"),
        ("https://abcdef@h.org/", "https://[redacted]@h.org/"),
        (
            "https://h.org/cb?code=1&state=2#access_token=3&x",
            "https://h.org/cb?code=[redacted]&state=2#access_token=[redacted]&x",
        ),
        ("https://b.s3/x?X-Amz-Date=1&X-Amz-Signature=ab", "https://b.s3/x?X-Amz-Date=1&X-Amz-Signature=[redacted]"),
        ("https://h/?key=1&sig=2&token=", "https://h/?key=[redacted]&sig=[redacted]&token="),
        ("postgres://u:p@db:5432/x", "postgres://u:[redacted]@db:5432/x"),
        ("http://h:80/a:b@c", "http://h:80/a:b@c"),
        ("//u:p", "//u:p"),
    ] {
        assert_eq!(redact_url(url), redacted);
        assert_eq!(one(url), redacted);
        assert_eq!(one(&format!("--proxy={url}")), format!("--proxy={redacted}"));
    }
}

#[test]
fn shapes_anywhere() {
    for token in [
        "sk-abcdefghijklmnopqrstuvwx",
        "sk-ant-api03-abcdefghijklmnop-_x",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "gho_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_11ABCDEFG0abcdefghijkl_mnop",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdefghij",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "eyJhbGciOi.eyJzdWIiOi.SflKxwRJ_-",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.",
    ] {
        assert_eq!(one(token), MARK);
        assert_eq!(one(&format!("x {token} y")), "x [redacted] y");
        assert_eq!(one(&format!("f({token})")), "f([redacted])");
    }
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----";
    assert_eq!(one(&format!("echo '{key}' > f")), "echo [redacted] > f");
    assert_eq!(one("-----BEGIN PRIVATE KEY-----\nMIIE"), MARK);
    let public = "-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----";
    assert_eq!(one(public), public);
}

#[test]
fn commands_inside_commands() {
    let sh = |script: &str| argv(&["sh", "-c", script]).remove(2);
    assert_eq!(sh("mysql -uroot -psecret db | gzip > 'a b'"), "mysql -uroot -p[redacted] db | gzip > 'a b'");
    assert_eq!(sh("curl -u me:pw https://h/ && echo done"), "curl -u me:[redacted] https://h/ && echo done");
    assert_eq!(
        sh("curl -H \"Authorization: Bearer abc\" https://h/"),
        "curl -H 'Authorization: Bearer [redacted]' https://h/"
    );
    assert_eq!(sh("PGPASSWORD='a b' psql; x --token abc -v"), "PGPASSWORD=[redacted] psql; x --token [redacted] -v");
    assert_eq!(sh("bash -c 'PASS=x \"$0\" --password y'"), "bash -c 'PASS=[redacted] \"$0\" --password [redacted]'");
    assert_eq!(
        sh("curl -d '{\"token\":\"abc\"}' 'https://h/?sig=1&b=2'"),
        "curl -d '{\"token\":\"[redacted]\"}' 'https://h/?sig=[redacted]&b=2'"
    );
    assert_eq!(sh("echo it\\'s fine; ls -l \"a b\""), "echo it\\'s fine; ls -l \"a b\"");
}

#[test]
fn long_arguments_take_linear_time() {
    for piece in [
        "token=",
        "token=\"",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "a://b@",
        "'",
        "x ",
        "\\",
        "-u a:b ",
        "Authorization: Bearer ",
        "sh -c '",
        "a=",
        ":",
    ] {
        let word = piece.repeat((1 << 20) / piece.len());
        let begun = std::time::Instant::now();
        assert_eq!(argv(&["sh", "-c", &word]).len(), 3);
        // Squared, this would be hours.
        assert!(begun.elapsed().as_secs() < 20, "{piece:?} took {:?}", begun.elapsed());
    }
}

/// Pieces that the rules know, glued in ways nobody planned.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "password",
            "token",
            "TOKEN",
            "key",
            "sig",
            "PGPASSWORD",
            "Authorization",
            "Cookie",
            "Bearer",
            "Basic",
            "-u",
            "--user",
            "--password",
            "-p",
            "-H",
            "mysql",
            "curl",
            "sh",
            "-c",
            "=",
            ":",
            ": ",
            " = ",
            "=>",
            "==",
            "?",
            "&",
            "#",
            "'",
            "\"",
            "\\",
            "\\\"",
            " ",
            " ",
            "  ",
            "\n",
            "\t",
            ";",
            "|",
            "(",
            ")",
            "$",
            "`",
            "]",
            "[redacted]",
            "https://",
            "@",
            "/",
            "me",
            "x",
            "a b",
            "12",
            "{",
            "}",
            ",",
            "-",
            "--",
            "é",
            "sk-abcdefghijklmnopqrst",
            "ghp_abcdefghijklmnopqrstuvwxyz",
            "eyJhbGciOiJ.eyJzdWIiOiIx.abc",
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,3}",
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn redacting_twice_changes_nothing_more(words in prop::collection::vec(nasty(), 0..5)) {
        let once = redact_argv(&words);
        prop_assert_eq!(once.len(), words.len());
        prop_assert_eq!(redact_argv(&once), once);
    }

    #[test]
    fn redacting_a_url_twice_changes_nothing_more(url in nasty()) {
        let once = redact_url(&url);
        prop_assert_eq!(redact_url(&once), once);
    }

    #[test]
    fn anything_can_be_redacted(words in prop::collection::vec(".*", 0..4)) {
        prop_assert_eq!(redact_argv(&words).len(), words.len());
    }

    #[test]
    fn an_announced_secret_never_stays(secret in "[A-Za-z0-9!@%^*_+~?]{6,20}", before in nasty()) {
        let secret = format!("zq{secret}qz");
        for word in [
            format!("PASSWORD={secret}"),
            format!("--token={secret}"),
            format!("Authorization: Basic {secret}"),
            format!("sh -c 'DB_PASSWORD={secret} x'"),
            format!("psql --password '{secret}'"),
            format!("https://h/?access_token={secret}&x=1"),
        ] {
            let redacted = argv(&[&before, &word]).remove(1);
            prop_assert!(!redacted.contains(&secret), "{} became {}", word, redacted);
        }
    }
}
