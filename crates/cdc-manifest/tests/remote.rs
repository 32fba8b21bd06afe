//! Stores across the network: what they are told, what they send, and what is refused at once.

use std::io::{Read, Write};
use std::net::TcpListener;

use cdc_core::ErrorKind;
use cdc_manifest::{
    AzureSpec, Encryption, Error, GcsSpec, KeyPrefix, LakeStore, S3Spec, StorageSpec, Swap,
    Transfer,
};

use crate::weed::{self, Weed};

fn gcs(credentials_file: std::path::PathBuf) -> StorageSpec {
    StorageSpec::Gcs(GcsSpec {
        bucket: "lake".into(),
        prefix: KeyPrefix::parse("/a/b").unwrap(),
        endpoint: None,
        credentials_file: Some(credentials_file),
        transfer: Transfer::default(),
    })
}

fn azure(credentials_file: std::path::PathBuf) -> StorageSpec {
    StorageSpec::Azure(AzureSpec {
        account: "account".into(),
        container: "lake".into(),
        prefix: KeyPrefix::parse("a/b/").unwrap(),
        endpoint: None,
        credentials_file: Some(credentials_file),
        transfer: Transfer::default(),
    })
}

#[test]
fn gcs_and_azure_open_with_credentials_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials.json");
    let user = r#"{"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "t"}"#;
    std::fs::write(&file, user).unwrap();
    let lake = LakeStore::open(&gcs(file.clone())).unwrap();
    assert_eq!(lake.location().uri("manifest.json"), "gs://lake/a/b/manifest.json");

    for principal in [
        r#"{"clientId": "i", "clientSecret": "s", "tenantId": "t"}"#,
        r#"{"appId": "i", "password": "s", "tenant": "t"}"#,
    ] {
        std::fs::write(&file, principal).unwrap();
        let lake = LakeStore::open(&azure(file.clone())).unwrap();
        assert_eq!(lake.location().uri("manifest.json"), "az://lake/a/b/manifest.json");
    }
}

#[test]
fn unusable_credentials_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.json");
    let torn = dir.path().join("torn.json");
    std::fs::write(&torn, "{").unwrap();
    for (spec, file) in [
        (gcs(missing.clone()), &missing),
        (azure(missing.clone()), &missing),
        (azure(torn.clone()), &torn),
    ] {
        let error = LakeStore::open(&spec).unwrap_err();
        assert!(matches!(error, Error::Credentials { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    }
    let error = LakeStore::open(&gcs(torn)).unwrap_err();
    assert!(matches!(error, Error::Storage { kind: "gcs", .. }), "{error:?}");
    assert!(error.to_string().contains("hint: "), "{error}");
}

/// Takes one request, answers it, and gives its head.
fn one_request(listener: TcpListener) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        client.write_all(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8(head).unwrap().to_lowercase()
    })
}

#[tokio::test]
async fn s3_is_sent_path_prefix_precondition_and_encryption() {
    if weed::runs_without_credentials("remote::s3_is_sent_path_prefix_precondition_and_encryption")
    {
        return;
    }
    for (encryption, sent) in [
        (Encryption::SseS3, "x-amz-server-side-encryption: aes256"),
        (Encryption::SseKms { key_id: None }, "x-amz-server-side-encryption: aws:kms"),
        (
            Encryption::SseKms { key_id: Some("the-key".into()) },
            "x-amz-server-side-encryption-aws-kms-key-id: the-key",
        ),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let server = one_request(listener);
        let spec = S3Spec {
            bucket: "lake".into(),
            prefix: KeyPrefix::parse("/a/b").unwrap(),
            region: "eu-central-1".into(),
            endpoint: Some(endpoint),
            encryption,
            transfer: Transfer::default(),
        };
        let lake = LakeStore::open(&StorageSpec::S3(spec)).unwrap();
        let stored = lake.swap("manifest.json", "{}".into(), None).await.unwrap();
        assert!(matches!(stored, Swap::Stored(_)));
        let head = server.join().unwrap();
        assert!(head.starts_with("put /lake/a/b/manifest.json http/1.1\r\n"), "{head}");
        assert!(head.contains("if-none-match: *\r\n"), "{head}");
        assert!(head.contains("/eu-central-1/s3/aws4_request"), "{head}");
        assert!(head.contains(sent), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_exist_is_refused() {
    if weed::runs_without_credentials("remote::a_bucket_that_does_not_exist_is_refused") {
        return;
    }
    let weed = Weed::shared();
    weed.lake("refused").await;
    let spec = StorageSpec::S3(weed.spec("nowhere", ""));
    let lake = LakeStore::open(&spec).unwrap();
    let error = lake.load_versioned("manifest.json").await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = lake.probe_cas().await.unwrap_err();
    assert!(cdc_core::chain(&error).contains("storage.bucket"), "{}", cdc_core::chain(&error));
}

#[tokio::test]
async fn a_store_that_is_away_leaves_the_outcome_unknown() {
    if weed::runs_without_credentials("remote::a_store_that_is_away_leaves_the_outcome_unknown") {
        return;
    }
    let spec = S3Spec {
        bucket: "lake".into(),
        prefix: KeyPrefix::default(),
        region: "eu-central-1".into(),
        endpoint: Some("http://127.0.0.1:9".into()),
        encryption: Encryption::Bucket,
        transfer: Transfer { retries_max: 1, ..Transfer::default() },
    };
    let lake = LakeStore::open(&StorageSpec::S3(spec)).unwrap();
    let outcome = lake.swap("manifest.json", "{}".into(), None).await.unwrap();
    let Swap::Unknown(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(error.to_string().contains("hint: "), "{error}");
}
