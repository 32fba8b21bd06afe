//! TLS policies and logins against a real server. The certificates in `tests/data` were made for
//! this test, are valid for a century and protect nothing.

use std::path::PathBuf;

use cdc_core::ErrorKind;
use cdc_wal::{Connector, Error, ResumePoint, StreamOptions, WalStream};

use crate::fixture::{Postgres, Tail, within};

const HBA: &str = "local all all trust\n\
                   hostssl all tls_user 127.0.0.1/32 cert\n\
                   host all tls_user 127.0.0.1/32 reject\n\
                   host all scram_user 127.0.0.1/32 scram-sha-256\n\
                   host all md5_user 127.0.0.1/32 md5\n\
                   host all plain_user 127.0.0.1/32 password\n\
                   host all all 127.0.0.1/32 trust\n";
const SETTINGS: &[&str] =
    &["ssl=on", "ssl_cert_file='server.pem'", "ssl_key_file='server.key'", "ssl_ca_file='ca.pem'"];

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn start() -> Postgres {
    let text = |name: &str| std::fs::read_to_string(data(name)).unwrap();
    let files = ["server.pem", "server.key", "ca.pem"].map(|name| (name, text(name)));
    let hba = [("pg_hba.conf", HBA.to_owned())];
    Postgres::start_with(SETTINGS, &[files.as_slice(), &hba].concat())
}

/// A connector with TLS files given by name; `rest` is `user@host/database?parameters`.
fn connector(postgres: &Postgres, rest: &str) -> Connector {
    let (login, more) = rest.split_once('/').unwrap();
    let directory = data("").display().to_string();
    let more = more.replace("DATA/", &directory);
    postgres.connector_with(&format!("{login}:{}/{more}", postgres.port))
}

async fn open(connector: &Connector, at: &ResumePoint) -> cdc_wal::Result<WalStream> {
    let opening = WalStream::open(connector, at.clone(), StreamOptions::new("pub"));
    within("the stream to open", opening).await
}

/// Opens a session of each kind and answers whether the SQL one is encrypted.
async fn encrypted(connector: &Connector, at: &ResumePoint) -> bool {
    let (client, connection) = connector.connect_sql().await.unwrap();
    let connection = tokio::spawn(connection);
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ssl = client.query_one(sql, &[]).await.unwrap().get(0);
    drop(client);
    connection.await.unwrap().unwrap();
    open(connector, at).await.unwrap().close().await.unwrap();
    ssl
}

#[tokio::test]
async fn tls_is_as_strict_as_sslmode_says_for_both_kinds_of_session() {
    let postgres = start();
    let (_client, at) = postgres.source("modes", "CREATE TABLE t (id int PRIMARY KEY)").await;
    for (mode, expected) in [
        ("postgres@127.0.0.1/modes?sslmode=disable", false),
        ("postgres@127.0.0.1/modes?sslmode=prefer", true),
        ("postgres@127.0.0.1/modes?sslmode=require", true),
        ("postgres@127.0.0.1/modes?sslmode=require&sslrootcert=DATA/ca.pem", true),
        ("postgres@127.0.0.1/modes?sslmode=verify-ca&sslrootcert=DATA/ca.pem", true),
        ("postgres@localhost/modes?sslmode=verify-full&sslrootcert=DATA/ca.pem", true),
        // a self-signed server certificate that is itself what is trusted
        ("postgres@localhost/modes?sslmode=verify-full&sslrootcert=DATA/server.pem", true),
    ] {
        let connector = connector(&postgres, mode);
        assert_eq!(encrypted(&connector, &at).await, expected, "{mode}");
    }
    for refused in [
        "postgres@127.0.0.1/modes?sslmode=verify-full&sslrootcert=DATA/ca.pem",
        "postgres@127.0.0.1/modes?sslmode=verify-full&sslrootcert=DATA/server.pem",
        "postgres@localhost/modes?sslmode=verify-full&sslrootcert=DATA/other_ca.pem",
        "postgres@localhost/modes?sslmode=verify-ca&sslrootcert=DATA/other_ca.pem",
        "postgres@localhost/modes?sslmode=require&sslrootcert=DATA/other_ca.pem",
        "postgres@localhost/modes?sslmode=verify-full&sslrootcert=DATA/no_such_file.pem",
    ] {
        let connector = connector(&postgres, refused);
        let error = open(&connector, &at).await.unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{refused}: {error}");
        let error = connector.connect_sql().await.map(drop).unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{refused}: {error}");
    }
}

#[tokio::test]
async fn certificates_and_passwords_let_in_whom_they_should() {
    let postgres = start();
    let setup = "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE tls_user LOGIN REPLICATION; \
                 CREATE ROLE scram_user LOGIN REPLICATION PASSWORD 'p@ss word'; \
                 SET password_encryption = md5; \
                 CREATE ROLE md5_user LOGIN REPLICATION PASSWORD 'old'";
    let (_client, at) = postgres.source("logins", setup).await;
    let mutual = "sslmode=verify-full&sslrootcert=DATA/ca.pem&sslcert=DATA/client.pem&sslkey=DATA/client.key";
    for accepted in [
        &format!("tls_user@localhost/logins?{mutual}"),
        // over TLS the server offers channel binding, which fails unless both compute the same
        "scram_user:p%40ss%20word@127.0.0.1/logins?sslmode=require",
        "scram_user:p%40ss%20word@127.0.0.1/logins?sslmode=disable",
        "md5_user:old@127.0.0.1/logins?sslmode=disable",
    ] {
        encrypted(&connector(&postgres, accepted), &at).await;
    }
    for refused in [
        "tls_user@localhost/logins?sslmode=require",
        "tls_user@127.0.0.1/logins?sslmode=disable",
        "scram_user:wrong@127.0.0.1/logins?sslmode=require",
        "scram_user@127.0.0.1/logins?sslmode=require",
        "md5_user:wrong@127.0.0.1/logins?sslmode=disable",
    ] {
        let error = open(&connector(&postgres, refused), &at).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{refused}: {error}");
    }
}

#[tokio::test]
async fn a_password_in_clear_is_sent_over_tls_only_by_both_kinds_of_session() {
    let postgres = start();
    let setup = "CREATE TABLE t (id int PRIMARY KEY); \
                 CREATE ROLE plain_user LOGIN REPLICATION PASSWORD 'secret'";
    let (_client, at) = postgres.source("plain", setup).await;
    let over_tls = "plain_user:secret@127.0.0.1/plain?sslmode=require";
    encrypted(&connector(&postgres, over_tls), &at).await;
    let in_clear = connector(&postgres, "plain_user:secret@127.0.0.1/plain?sslmode=disable");
    let refused = [
        open(&in_clear, &at).await.map(drop).unwrap_err(),
        in_clear.connect_sql().await.map(drop).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::Auth { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("sslmode=require") && !message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn the_url_is_read_again_at_every_connect() {
    use std::sync::{Arc, Mutex};
    let postgres = start();
    let setup = "CREATE TABLE t (id int PRIMARY KEY); \
                 CREATE ROLE scram_user LOGIN REPLICATION PASSWORD 'first'";
    let (client, at) = postgres.source("rotated", setup).await;
    let password = Arc::new(Mutex::new("first"));
    let (known, port) = (Arc::clone(&password), postgres.port);
    let connector = Connector::resolving(move || {
        let password = known.lock().unwrap();
        let url = format!("postgresql://scram_user:{password}@127.0.0.1:{port}/rotated");
        cdc_wal::Endpoint::parse(&url.into())
    });
    encrypted(&connector, &at).await;
    client.batch_execute("ALTER ROLE scram_user PASSWORD 'second'").await.unwrap();
    let error = open(&connector, &at).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    *password.lock().unwrap() = "second";
    encrypted(&connector, &at).await;
}

#[tokio::test]
async fn no_more_sessions_are_open_at_once_than_may_be() {
    let postgres = Postgres::shared();
    let (_client, at) = postgres.source("bounded", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let rest = format!("postgres@127.0.0.1:{}/bounded?connect_timeout=2", postgres.port);
    let connector = postgres.connector_with(&rest).with_max_sessions(2);
    let stream = open(&connector, &at).await.unwrap();
    let (client, connection) = connector.connect_sql().await.unwrap();
    let error = connector.connect_sql().await.map(drop).unwrap_err();
    assert!(matches!(error, Error::TooManySessions { limit: 2 }), "{error}");
    stream.close().await.unwrap();
    connector.connect_sql().await.map(drop).unwrap();
    drop((client, connection));
}

#[tokio::test]
async fn a_large_transaction_arrives_whole_over_tls() {
    let postgres = start();
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v text)";
    let (client, at) = postgres.source("bulk", setup).await;
    let rows = "INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 50000) n";
    client.batch_execute(rows).await.unwrap();
    let connector = connector(&postgres, "postgres@127.0.0.1/bulk?sslmode=require");
    let mut tail = Tail::new(open(&connector, &at).await.unwrap());
    tail.commits(1).await;
    assert_eq!(tail.change_lsns.len(), 50000);
    client.batch_execute("INSERT INTO t VALUES (-1, 'last')").await.unwrap();
    tail.commits(2).await;
    tail.stream.close().await.unwrap();
}
