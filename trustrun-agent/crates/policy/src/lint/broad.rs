//! Wildcards and networks that let through what anybody can have.

use super::{Found, LintKind};
use crate::{Pattern, Rule, pattern::Target};

/// Names below which anybody, or any customer, can have one: hosting, storage, functions, tunnels. A list of our own, of
/// what programs that handle data meet; below a top-level name anybody can have one anyway.
const SHARED: [&str; 76] = [
    "ac.uk",
    "amazonaws.com",
    "amplifyapp.com",
    "api.azureml.ms",
    "appspot.com",
    "awsapps.com",
    "azure-api.net",
    "azure-devices.net",
    "azure.com",
    "azure.net",
    "azurecontainerapps.io",
    "azurecr.io",
    "azureedge.net",
    "azurefd.net",
    "azurestaticapps.net",
    "azurewebsites.net",
    "backblazeb2.com",
    "blob.core.windows.net",
    "blogspot.com",
    "cloud.databricks.com",
    "cloudapp.azure.com",
    "cloudapp.net",
    "cloudflare.net",
    "cloudfront.net",
    "cloudfunctions.net",
    "co.jp",
    "co.uk",
    "cognitiveservices.azure.com",
    "com.au",
    "com.br",
    "com.cn",
    "core.windows.net",
    "database.windows.net",
    "digitaloceanspaces.com",
    "dropboxusercontent.com",
    "elasticbeanstalk.com",
    "execute-api.amazonaws.com",
    "fastly.net",
    "fastlylb.net",
    "file.core.windows.net",
    "firebaseapp.com",
    "firebaseio.com",
    "fly.dev",
    "github.io",
    "githubusercontent.com",
    "gitlab.io",
    "glitch.me",
    "googleapis.com",
    "googleusercontent.com",
    "herokuapp.com",
    "hf.space",
    "lambda-url.on.aws",
    "loca.lt",
    "my.salesforce.com",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.app",
    "ngrok.io",
    "on.aws",
    "onrender.com",
    "openai.azure.com",
    "org.uk",
    "pages.dev",
    "r2.dev",
    "railway.app",
    "replit.dev",
    "run.app",
    "search.windows.net",
    "sharepoint.com",
    "supabase.co",
    "trafficmanager.net",
    "trycloudflare.com",
    "vercel.app",
    "web.app",
    "windows.net",
    "workers.dev",
];

/// Notes such a pattern, and whether it was one.
pub(super) fn look(rule: &Rule, pattern: &Pattern, found: &mut Found) -> bool {
    let message = match &pattern.target {
        Target::Any if pattern.ports == (0, u16::MAX) => {
            format!("`{pattern}` is every destination there is; write the names and networks that are meant")
        }
        Target::Below(name) if !name.contains('.') => {
            format!(
                "`{pattern}` is every name under `{name}`, where anybody can have one; write the names that are meant"
            )
        }
        Target::Below(name) if SHARED.binary_search(&&**name).is_ok() => format!(
            "anybody who is a customer can have a name under `{name}`, so `{pattern}` lets their machines through too; write \
             the names that are meant, or `require_private_ip: true` where yours is a private link"
        ),
        Target::Net(net) => {
            // Nobody owns that much: half of a /8, and of what is given out of IPv6 at once.
            let wide = if net.is_v4() { net.bits < 96 + 8 } else { net.bits < 16 };
            if !wide {
                return false;
            }
            format!("`{pattern}` is a large part of the Internet; write the networks that are meant")
        }
        _ => return false,
    };
    found.add(&rule.origin, LintKind::OverBroad, message);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_so_that_it_is_found() {
        assert!(SHARED.is_sorted());
    }
}
