//! Which names announce a secret.

/// Characters of an option's, a variable's or a header's name.
pub(super) fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Anywhere in a name without its separators.
const INSIDE: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "authkey",
    "accountkey",
    "sharedkey",
    "encryptionkey",
    "signingkey",
    "masterkey",
    "sessionkey",
    "subscriptionkey",
    "authorization",
    "signature",
];
/// One part of a name (`DB_PASS`, `x-auth-token`, `accessToken`).
const PART: &[&str] = &[
    "pass", "pwd", "pw", "token", "auth", "bearer", "cookie", "cookies", "cred", "creds", "sig", "jwt", "sas", "psk",
    "otp",
];
/// Names that end so say where a secret is or what it is like, not what it is.
const ABOUT: &[&str] = &[
    "file",
    "files",
    "path",
    "dir",
    "directory",
    "stdin",
    "fd",
    "jar",
    "store",
    "prompt",
    "url",
    "uri",
    "endpoint",
    "type",
    "length",
    "len",
    "size",
    "count",
    "limit",
    "ttl",
    "expiry",
    "expires",
    "provider",
    "manager",
    "command",
    "cmd",
    "helper",
    "sock",
    "socket",
    "name",
    "mode",
    "method",
    "plugin",
];
/// Words that end in `pass` or `token` and are none.
const OTHERWISE: &[&str] =
    &["bypass", "compass", "encompass", "surpass", "trespass", "overpass", "underpass", "detoken"];
/// Switches with one of these take no value.
const BOOLEAN: &[&str] = &["no", "skip", "disable", "without", "enable", "allow", "require", "ask"];
/// Query parameters besides.
const QUERY: &[&str] = &["key", "code", "session", "sessionid", "sid", "assertion", "ticket"];

/// The parts of a name, lower-case: `X-AuthToken_2` is `x`, `auth`, `token`, `2`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut lower_before = false;
    for c in name.chars() {
        let separates = !c.is_ascii_alphanumeric();
        if (separates || (lower_before && c.is_ascii_uppercase())) && parts.last().is_some_and(|p| !p.is_empty()) {
            parts.push(String::new());
        }
        lower_before = c.is_ascii_lowercase();
        if let (false, Some(last)) = (separates, parts.last_mut()) {
            last.push(c.to_ascii_lowercase());
        }
    }
    parts.retain(|p| !p.is_empty());
    parts
}

/// Whether what such a name is given is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let parts = parts(name);
    let Some(last) = parts.last() else { return false };
    if ABOUT.contains(&last.as_str()) {
        return false;
    }
    let joined = parts.concat();
    let part = |p: &String| {
        PART.contains(&p.as_str())
            || ((p.ends_with("token") || p.ends_with("pass")) && !OTHERWISE.contains(&p.as_str()))
    };
    // OPENAI_KEY in the environment, but not --sort-key.
    let variable = last == "key" && parts.len() > 1 && !name.bytes().any(|b| b.is_ascii_lowercase());
    INSIDE.iter().any(|inside| joined.contains(inside)) || parts.iter().any(part) || variable
}

/// Whether the word after such a switch (without its dashes) is a secret.
pub(super) fn is_secret_switch(name: &str) -> bool {
    name.len() > 2
        && name.bytes().all(in_name)
        && is_secret(name)
        && !parts(name).iter().any(|p| BOOLEAN.contains(&p.as_str()))
}

/// Whether such a parameter of a URL is a secret.
pub(super) fn is_secret_parameter(name: &str) -> bool {
    is_secret(name) || QUERY.iter().any(|query| name.eq_ignore_ascii_case(query))
}

/// Names whose values have spaces in them.
pub(super) fn is_wide(name: &str) -> bool {
    parts(name).iter().any(|p| matches!(p.as_str(), "authorization" | "cookie"))
}

/// What stands before the secret in an Authorization header.
pub(super) fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "digest", "token", "negotiate", "apikey", "dpop"].iter().any(|s| word.eq_ignore_ascii_case(s))
}

/// The kind of tool that a word names, where its short switches are known.
pub(super) fn tool(word: &str) -> Option<&'static str> {
    let base = word.rsplit('/').next().unwrap_or(word);
    match base {
        "curl" | "smbclient" | "sshpass" | "redis-cli" | "login" | "zip" | "unzip" | "7z" | "7za" | "7zz" => {
            ["curl", "smbclient", "sshpass", "redis-cli", "login", "zip", "unzip", "7z", "7za", "7zz"]
                .into_iter()
                .find(|name| *name == base)
        }
        "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "fish" | "su" => Some("sh"),
        _ if word.bytes().any(|b| b.is_ascii_whitespace()) => None,
        _ if base.starts_with("mysql") || base.starts_with("mariadb") => Some("mysql"),
        _ if base.starts_with("mongo") => Some("mongo"),
        _ if base.starts_with("ldap") => Some("ldap"),
        _ => None,
    }
}

/// A tool's short switch for a secret, and whether its value may stand in the same word.
pub(super) fn short_secret(tool: &str) -> Option<(&'static str, bool)> {
    match tool {
        "mysql" | "sshpass" | "7z" | "7za" | "7zz" => Some(("-p", true)),
        "mongo" | "login" => Some(("-p", false)),
        "redis-cli" => Some(("-a", false)),
        "ldap" => Some(("-w", true)),
        "zip" | "unzip" => Some(("-P", true)),
        "curl" => Some(("-b", true)),
        _ => None,
    }
}
