//! `nfreezer server-setup --append-only s3://...`: policies and commands that keep a client's key from changing and deleting
//! objects of a bucket. Text only; nothing is run.

use serde_json::{Value, json};

use super::escape;
use crate::storage::{Bucket, Endpoint};

/// Days for which a version of an object cannot be deleted, in the printed commands.
const DAYS: u32 = 30;

/// The policies and the script around them.
pub struct Recipe {
    /// For the client's key: it lists, reads and adds.
    pub client: Value,
    /// For the bucket: a put must ask that the object does not exist.
    pub bucket: Value,
    /// Writes both into files and applies them with the tools of AWS.
    pub script: String,
}

impl Recipe {
    /// Makes the recipe for a repository.
    pub fn new(place: &Bucket) -> Self {
        let (client, bucket) = (client_policy(place), bucket_policy(place));
        let script = script(place, &client, &bucket);
        Recipe { client, bucket, script }
    }
}

fn objects(place: &Bucket) -> String {
    let slash = if place.prefix.is_empty() { "" } else { "/" };
    format!("arn:aws:s3:::{}{slash}{}/*", place.bucket, place.prefix)
}

fn client_policy(place: &Bucket) -> Value {
    let bucket = format!("arn:aws:s3:::{}", place.bucket);
    let mut list = json!({ "Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketVersions"], "Resource": bucket });
    if !place.prefix.is_empty() {
        list["Condition"] = json!({ "StringLike": { "s3:prefix": format!("{}/*", place.prefix) } });
    }
    let objects = objects(place);
    json!({ "Version": "2012-10-17", "Statement": [
        list,
        { "Sid": "ReadAndAdd", "Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"], "Resource": objects },
    ] })
}

fn bucket_policy(place: &Bucket) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Sid": "NeverReplace",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": objects(place),
        "Condition": { "Null": { "s3:if-none-match": "true" } },
    }] })
}

fn script(place: &Bucket, client: &Value, bucket: &Value) -> String {
    let name = &place.bucket;
    let at = place.endpoint.as_ref().map(Endpoint::url).map(|url| format!(" --endpoint-url {url}")).unwrap_or_default();
    let rule = json!({ "ObjectLockEnabled": "Enabled",
        "Rule": { "DefaultRetention": { "Mode": "GOVERNANCE", "Days": DAYS } } });
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (client, bucket) = (text(client), text(bucket));
    format!(
        "# For the owner of the bucket {name}, with a key that may do everything. Read it, then run it with sh.\n\
         #\n\
         # 1. The policy for the client's key (at AWS: of its IAM user; MinIO, Ceph and others attach it with their own tools).\n\
         #    The key lists, reads and adds. It may not delete, and not change the bucket.\n\
         cat > client-policy.json <<'JSON'\n{client}\nJSON\n\
         # aws iam put-user-policy --user-name CLIENT --policy-name nfreezer --policy-document file://client-policy.json\n\
         #\n\
         # 2. Adding must not replace. At AWS, the bucket refuses a put that does not ask for that (nfreezer always asks).\n\
         #    This replaces another policy of the bucket. A store that does not know s3:if-none-match needs 3.\n\
         cat > bucket-policy.json <<'JSON'\n{bucket}\nJSON\n\
         aws{at} s3api put-bucket-policy --bucket {name} --policy file://bucket-policy.json\n\
         #\n\
         # 3. Versions and object lock: what a key replaces or deletes in spite of that stays for {DAYS} days as an older\n\
         #    version. At AWS this works for existing buckets too, elsewhere often for new buckets only\n\
         #    (aws{at} s3api create-bucket --bucket {name} --object-lock-enabled-for-bucket).\n\
         aws{at} s3api put-bucket-versioning --bucket {name} --versioning-configuration Status=Enabled\n\
         aws{at} s3api put-object-lock-configuration --bucket {name} --object-lock-configuration '{rule}'\n\
         #\n\
         {}",
        limits()
    )
}

fn limits() -> String {
    let text = "This does not protect from:\n\
        - reading: a thief with the key reads all objects, and with the passphrase all that was ever saved\n\
        - new things: a thief can add snapshots (also false ones, which are then `latest`) and cost you money\n\
        - the provider, the owner of the account, and a thief with a key that may do everything\n\
        - the past: what a thief did before this was set up\n\
        `forget`, `prune` and `key remove` need another key. Deleted objects cost money until their versions expire: add a\n\
        rule of a life cycle for noncurrent versions, and none for current ones.\n\
        `check` finds objects that were deleted or overwritten, of which the store keeps versions; `repair` brings them back.\n";
    text.lines().map(|line| format!("# {}\n", escape::text(line.as_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what the script writes into files.
    fn files(script: &str) -> Vec<Value> {
        let parts = script.split("<<'JSON'\n").skip(1).map(|rest| rest.split("\nJSON\n").next().unwrap());
        parts.map(|text| serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))).collect()
    }

    fn recipe(address: &str) -> Recipe {
        Recipe::new(&Bucket::parse(address).unwrap().unwrap())
    }

    #[test]
    fn the_policies_in_the_script_are_valid_json_and_name_the_repository_only() {
        let recipe = recipe("s3+http://nas:9000/bucket/my/repo");
        assert_eq!(files(&recipe.script), [recipe.client.clone(), recipe.bucket.clone()]);
        let statements = recipe.client["Statement"].as_array().unwrap();
        assert_eq!(statements[0]["Condition"]["StringLike"]["s3:prefix"], "my/repo/*");
        assert_eq!(statements[1]["Resource"], "arn:aws:s3:::bucket/my/repo/*");
        assert!(!recipe.client.to_string().contains("Delete"));
        assert_eq!(recipe.bucket["Statement"][0]["Condition"]["Null"]["s3:if-none-match"], "true");
        let commands = recipe.script.lines().filter(|line| line.starts_with("aws "));
        assert!(commands.clone().count() == 3);
        assert!(commands.into_iter().all(|line| line.contains("--endpoint-url http://nas:9000 ")), "{}", recipe.script);
        let lock = recipe.script.split("--object-lock-configuration '").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!(serde_json::from_str::<Value>(lock).unwrap()["Rule"]["DefaultRetention"]["Days"], DAYS);
    }

    #[test]
    fn a_whole_bucket_has_no_folder_in_its_policies() {
        let recipe = recipe("s3://bucket");
        assert_eq!(recipe.bucket["Statement"][0]["Resource"], "arn:aws:s3:::bucket/*");
        assert!(recipe.client["Statement"][0].get("Condition").is_none());
        assert!(!recipe.script.contains("endpoint-url"));
    }
}
