//! Credentials, region and server from the environment and the files of the user, where the tools of AWS look for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::printable;
use crate::storage::bucket::S3Options;

/// Settings of a profile that get credentials by other ways.
const UNSUPPORTED: [&str; 5] = ["credential_process", "sso_session", "sso_start_url", "role_arn", "source_profile"];

/// The settings in the environment and in the profile.
#[derive(Default)]
pub struct Settings {
    /// The key; none where a service of the machine hands it out.
    pub keys: Option<Keys>,
    /// The region.
    pub region: Option<String>,
    /// The URL of the server.
    pub endpoint: Option<String>,
}

/// An access key.
pub struct Keys {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

type Section = BTreeMap<String, String>;

impl Settings {
    /// Reads the environment, then the profile.
    pub fn read(options: &S3Options) -> Result<Self> {
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
            None => keys_of(&profile, "aws_access_key_id", "aws_secret_access_key", "aws_session_token")?,
        };
        let other = UNSUPPORTED.iter().find(|key| profile.contains_key(**key));
        if let Some(key) = other.filter(|_| keys.is_none()) {
            let text = format!("the profile {} gets its credentials by {key}", printable::name(name.as_bytes()));
            return Err(Error::new(Kind::Usage, text)
                .hint("`eval \"$(aws configure export-credentials --format env)\"` puts them into the environment"));
        }
        let of_profile = |key: &str| profile.get(key).cloned();
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or_else(|| of_profile("region"));
        let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
        Ok(Settings { keys, region, endpoint: endpoint.or_else(|| of_profile("endpoint_url")) })
    }
}

fn keys_of(from: &Section, id: &str, secret: &str, token: &str) -> Result<Option<Keys>> {
    let value = |name: &str| from.get(name).cloned();
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

/// Returns a section of an INI file. Indented lines belong to nested settings, which are not ours.
fn parse(text: &str, name: &str) -> Option<Section> {
    let (mut found, mut is_here) = (None, false);
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t', '#', ';'])) {
        if let Some(header) = line.trim_end().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_here = header.split_whitespace().eq(name.split_whitespace());
            if is_here {
                found.get_or_insert_with(Section::new);
            }
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_here)
            && let Some(section) = &mut found
        {
            section.insert(key.trim().to_ascii_lowercase(), value.trim().into());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

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
            region = nested\n[profile sso]\nsso_start_url = https://x\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        home
    }

    #[test]
    fn the_environment_wins_over_the_profile() {
        let home = home();
        let default = Settings::read(&options(&[], Some(home.path()))).unwrap();
        assert_eq!((default.keys.unwrap().id, default.region.unwrap()), ("AK1".into(), "eu-west-1".into()));
        let nas = Settings::read(&options(&[("AWS_PROFILE", "nas")], Some(home.path()))).unwrap();
        let keys = nas.keys.unwrap();
        assert_eq!((keys.id, keys.secret, keys.token), ("AK2".into(), "secret2".into(), Some("token2".into())));
        assert_eq!((nas.region.unwrap(), nas.endpoint.unwrap()), ("garage".into(), "http://nas:3900".into()));
        let variables = [("AWS_ACCESS_KEY_ID", "AK9"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "r")];
        let both = Settings::read(&options(&variables, Some(home.path()))).unwrap();
        assert_eq!((both.keys.unwrap().id, both.region.unwrap()), ("AK9".into(), "r".into()));
        assert!(Settings::read(&options(&[], None)).unwrap().keys.is_none());
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is() {
        let home = home();
        for (environment, expected) in [
            (vec![("AWS_PROFILE", "half")], "aws_access_key_id is set, but not aws_secret_access_key"),
            (vec![("AWS_PROFILE", "none")], "there is no profile none"),
            (vec![("AWS_PROFILE", "sso")], "gets its credentials by sso_start_url"),
            (vec![("AWS_SECRET_ACCESS_KEY", "hidden")], "AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID"),
        ] {
            let error = Settings::read(&options(&environment, Some(home.path()))).err().unwrap();
            assert!(error.to_string().contains(expected) && error.kind() == Kind::Usage, "{error}");
            let all = format!("{error} {error:?} {:?}", error.hint_text());
            assert!(!all.contains("hidden") && !all.contains("secret1") && !all.contains("AK3"), "{all}");
        }
    }
}
