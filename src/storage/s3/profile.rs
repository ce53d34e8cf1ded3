//! Credentials, region and server from the environment and the files of the user, where the tools of AWS look for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::keys::{Keys, is_plain};
use super::process;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::printable;
use crate::storage::bucket::S3Options;

/// Settings of a profile that get credentials by other ways.
const UNSUPPORTED: [&str; 6] =
    ["sso_session", "sso_start_url", "login_session", "role_arn", "source_profile", "credential_source"];
/// Settings of a profile by which a service trades a token in a file for credentials.
const WEB_IDENTITY: [&str; 3] = ["web_identity_token_file", "role_arn", "role_session_name"];

/// The settings in the environment and in the profile.
#[derive(Default)]
pub struct Settings {
    /// The key; none where a service of the machine hands it out.
    pub keys: Option<Keys>,
    /// The region.
    pub region: Option<String>,
    /// The URL of the server.
    pub endpoint: Option<String>,
    /// The bucket is part of the name of the host.
    pub is_bucket_in_host: bool,
    /// The settings of a web identity in the profile, by the names of their variables.
    pub web_identity: BTreeMap<String, String>,
}

type Section = BTreeMap<String, String>;

impl Settings {
    /// Reads the environment, then the profile. Runs the program that the profile names, if there are no keys.
    pub fn read(ctx: &Context, options: &S3Options) -> Result<Self> {
        let variable = |name: &str| options.environment.get(name).cloned();
        let (name, is_chosen) = match variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE")) {
            Some(name) => (name, true),
            None => ("default".into(), false),
        };
        let keys = keys_of(&options.environment, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")?;
        let profile = profile(options, &name)?;
        if profile.is_none() && is_chosen && keys.is_none() {
            let text = format!(
                "there is no profile {} in ~/.aws/credentials or ~/.aws/config",
                printable::name(name.as_bytes())
            );
            return Err(Error::new(Kind::Usage, text).hint("`aws configure list-profiles` shows the profiles"));
        }
        let profile = profile.unwrap_or_default();
        let keys = match keys {
            Some(keys) => Some(keys),
            None => keys_of_profile(ctx, &name, &profile)?,
        };
        let is_web = keys.is_none() && WEB_IDENTITY[..2].iter().all(|key| profile.contains_key(*key));
        let other = UNSUPPORTED.iter().find(|key| profile.contains_key(**key));
        if let Some(key) = other.filter(|_| keys.is_none() && !is_web) {
            let text = format!("the profile {} gets its credentials by {key}", printable::name(name.as_bytes()));
            return Err(Error::new(Kind::Usage, text)
                .hint("`eval \"$(aws configure export-credentials --format env)\"` puts them into the environment"));
        }
        let web = WEB_IDENTITY.iter().filter(|_| is_web);
        let web = web.filter_map(|key| Some((format!("AWS_{}", key.to_uppercase()), profile.get(*key)?.clone())));
        let web_identity = web.collect();
        let of_profile = |key: &str| profile.get(key).cloned();
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or_else(|| of_profile("region"));
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        let is_bucket_in_host = variable("AWS_VIRTUAL_HOSTED_STYLE_REQUEST").is_some_and(|value| value == "true")
            || of_profile("s3.addressing_style").is_some_and(|style| style == "virtual");
        let endpoint = endpoint.or_else(|| of_profile("endpoint_url"));
        Ok(Settings { keys, region, endpoint, is_bucket_in_host, web_identity })
    }
}

/// Returns the keys of a profile: its own, or the ones of the program that it names.
fn keys_of_profile(ctx: &Context, name: &str, profile: &Section) -> Result<Option<Keys>> {
    let own = keys_of(profile, "aws_access_key_id", "aws_secret_access_key", "aws_session_token")?;
    match (own, profile.get("credential_process")) {
        (None, Some(command)) => process::keys(ctx, name, command).map(Some),
        (own, _) => Ok(own),
    }
}

fn keys_of(from: &Section, id: &str, secret: &str, token: &str) -> Result<Option<Keys>> {
    let value = |name: &str| from.get(name).cloned();
    if let Some(name) = [id, secret, token].iter().find(|name| value(name).is_some_and(|text| !is_plain(&text))) {
        let text = format!("{name} holds a line break or another character that no key has");
        return Err(Error::new(Kind::Usage, text).hint("set it again, without them"));
    }
    match (value(id), value(secret)) {
        (Some(id), Some(secret)) => Ok(Some(Keys { id, secret, token: value(token) })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::new(Kind::Usage, format!("{id} is set, but not {secret}")).hint("set both")),
        (None, Some(_)) => Err(Error::new(Kind::Usage, format!("{secret} is set, but not {id}")).hint("set both")),
    }
}

/// Returns what both files say about a profile; `credentials` wins.
fn profile(options: &S3Options, name: &str) -> Result<Option<Section>> {
    let file = |variable: &str, usual: &str| {
        let named = options.environment.get(variable).map(PathBuf::from);
        named.or_else(|| options.home.as_ref().map(|home| home.join(usual)))
    };
    let in_config = if name == "default" { name.into() } else { format!("profile {name}") };
    let config = section(file("AWS_CONFIG_FILE", ".aws/config"), &in_config)?;
    let credentials = section(file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), name)?;
    Ok(match (config, credentials) {
        (None, None) => None,
        (config, credentials) => {
            let mut all = config.unwrap_or_default();
            all.extend(credentials.unwrap_or_default());
            Some(all)
        }
    })
}

fn section(file: Option<PathBuf>, name: &str) -> Result<Option<Section>> {
    let Some(file) = file else { return Ok(None) };
    let text = match std::fs::read_to_string(&file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::io(format!("read {}", file.display()), e))?,
    };
    Ok(parse(&text, name))
}

/// Returns a section of an INI file. Indented lines belong to the setting above them: `s3.addressing_style`.
fn parse(text: &str, name: &str) -> Option<Section> {
    let (mut found, mut is_here, mut above) = (None, false, String::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if let Some(header) = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_here = header.split_whitespace().eq(name.split_whitespace());
            if is_here {
                found.get_or_insert_with(Section::new);
            }
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_here)
            && let Some(section) = &mut found
        {
            let (is_nested, key) = (key.starts_with([' ', '\t']), key.trim().to_ascii_lowercase());
            let key = if is_nested { format!("{above}.{key}") } else { key };
            if !is_nested {
                above = key.clone();
            }
            section.insert(key, value.trim().into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::background;

    fn options(environment: &[(&str, &str)], home: Option<&std::path::Path>) -> S3Options {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        S3Options { environment, home: home.map(Into::into) }
    }

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "# mine\n[default]\naws_access_key_id = AK1\naws_secret_access_key=secret1\n\n[nas]\naws_access_key_id=AK2\n\
            aws_secret_access_key = secret2\naws_session_token = token2\n[half]\naws_access_key_id = AK3\n";
        let config = "[default]\nregion = eu-west-1\n[profile nas]\nregion=garage\nendpoint_url = http://nas:3900\ns3 =\n  \
            region = nested\n  addressing_style = virtual\n[profile process]\ncredential_process = echo '{\"Version\": 1, \
            \"AccessKeyId\": \"AK4\", \"SecretAccessKey\": \"s\"}'\n[profile web]\nrole_arn = arn:x\n\
            web_identity_token_file = /token\n[profile sso]\nsso_start_url = https://x\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        home
    }

    #[test]
    fn the_environment_wins_over_the_profile() {
        let home = home();
        let default = Settings::read(background(), &options(&[], Some(home.path()))).unwrap();
        assert_eq!((default.keys.unwrap().id, default.region.unwrap()), ("AK1".into(), "eu-west-1".into()));
        let nas = Settings::read(background(), &options(&[("AWS_PROFILE", "nas")], Some(home.path()))).unwrap();
        let keys = nas.keys.unwrap();
        assert_eq!((keys.id, keys.secret, keys.token), ("AK2".into(), "secret2".into(), Some("token2".into())));
        assert_eq!((nas.region.unwrap(), nas.endpoint.unwrap()), ("garage".into(), "http://nas:3900".into()));
        assert!(nas.is_bucket_in_host && !default.is_bucket_in_host && nas.web_identity.is_empty());
        let process = Settings::read(background(), &options(&[("AWS_PROFILE", "process")], Some(home.path()))).unwrap();
        assert_eq!(process.keys.unwrap().id, "AK4");
        let web = Settings::read(background(), &options(&[("AWS_PROFILE", "web")], Some(home.path()))).unwrap();
        assert_eq!((web.keys.is_none(), &*web.web_identity["AWS_ROLE_ARN"]), (true, "arn:x"));
        assert_eq!(web.web_identity["AWS_WEB_IDENTITY_TOKEN_FILE"], "/token");
        let variables = [("AWS_ACCESS_KEY_ID", "AK9"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "r")];
        let both = Settings::read(background(), &options(&variables, Some(home.path()))).unwrap();
        assert_eq!((both.keys.unwrap().id, both.region.unwrap()), ("AK9".into(), "r".into()));
        assert!(Settings::read(background(), &options(&[], None)).unwrap().keys.is_none());
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is() {
        let home = home();
        for (environment, expected) in [
            (vec![("AWS_PROFILE", "half")], "aws_access_key_id is set, but not aws_secret_access_key"),
            (vec![("AWS_PROFILE", "none")], "there is no profile none"),
            (vec![("AWS_PROFILE", "sso")], "gets its credentials by sso_start_url"),
            (
                vec![("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "hidden\n")],
                "AWS_SECRET_ACCESS_KEY holds a line break",
            ),
            (vec![("AWS_SECRET_ACCESS_KEY", "hidden")], "AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID"),
        ] {
            let error = Settings::read(background(), &options(&environment, Some(home.path()))).err().unwrap();
            assert!(error.to_string().contains(expected) && error.kind() == Kind::Usage, "{error}");
            let all = format!("{error} {error:?} {:?}", error.hint_text());
            assert!(!all.contains("hidden") && !all.contains("secret1") && !all.contains("AK3"), "{all}");
        }
    }
}
