//! What a control session says of its server.

use cdc_wal::{Provider, Source, SourceOptions, Transport};

use super::{Database, backend_pid};
use crate::fixture::Postgres;

#[tokio::test]
async fn facts_name_the_server_the_system_and_the_way_to_it() {
    let server = Postgres::shared();
    let db = Database::create(&server, "facts", "").await;
    let facts = db.control().await.facts().await.unwrap();
    let row = db
        .sql
        .query_one("SELECT system_identifier, version() FROM pg_control_system()", &[])
        .await
        .unwrap();
    assert_eq!(facts.system_identifier, row.get::<_, i64>(0).cast_unsigned());
    assert_eq!(facts.timeline, 1);
    assert!(row.get::<_, String>(1).starts_with(&facts.version_text), "{}", facts.version_text);
    assert!(!facts.version_text.contains('('));
    assert_eq!((facts.database.as_str(), facts.user.as_str()), ("facts", "postgres"));
    assert_eq!(facts.provider, Provider::SelfManaged);
    assert_eq!(facts.wal_level, "logical");
    assert_eq!(facts.server_encoding, "UTF8");
    assert_eq!(facts.transport, Transport::Loopback);
    assert!(!facts.in_recovery);
    assert!(!facts.current_lsn.is_zero());
}

#[tokio::test]
async fn a_unix_socket_needs_no_tls_and_the_named_provider_wins() {
    let server = Postgres::shared();
    let rest =
        format!("postgres@/postgres?host={}&port={}", server.socket_dir().display(), server.port);
    let options = SourceOptions { provider: Some(Provider::Rds), ..SourceOptions::default() };
    let source = Source::from_connector(server.connector_with(&rest), options);
    let control = source.connect().await.unwrap();
    let facts = control.facts().await.unwrap();
    assert_eq!(facts.transport, Transport::UnixSocket);
    assert_eq!(facts.provider, Provider::Rds);
    control.close().await;
}

#[tokio::test]
async fn aurora_is_known_by_its_function_and_rds_by_its_role() {
    let server = Postgres::start(&[]);
    let db = Database::create(&server, "clouds", "CREATE ROLE rds_superuser").await;
    assert_eq!(db.control().await.facts().await.unwrap().provider, Provider::Rds);
    let function = "CREATE FUNCTION aurora_version() RETURNS text LANGUAGE sql RETURN '1'";
    db.sql.batch_execute(function).await.unwrap();
    assert_eq!(db.control().await.facts().await.unwrap().provider, Provider::Aurora);
}

#[tokio::test]
async fn pinned_settings_win_over_database_and_role_defaults() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "pinned",
        "ALTER DATABASE pinned SET \"DateStyle\" = 'German'; \
         ALTER DATABASE pinned SET search_path = public; \
         ALTER DATABASE pinned SET bytea_output = 'escape'; \
         ALTER DATABASE pinned SET \"IntervalStyle\" = 'sql_standard'",
    )
    .await;
    // opening the session asserts every pinned setting
    assert!(!db.control().await.is_closed());
}

#[tokio::test]
async fn the_oldest_transactions_are_named() {
    let server = Postgres::start(&[]);
    let db = Database::create(&server, "oldest", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let control = db.control().await;
    assert_eq!(control.oldest_writer().await.unwrap(), None);
    let reader = server.session("oldest").await;
    reader.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let writer = server.session("oldest").await;
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let reader_pid = backend_pid(&reader).await;
    let writer_pid = backend_pid(&writer).await;
    assert_eq!(control.oldest_transaction().await.unwrap().unwrap().pid, reader_pid);
    let oldest_writer = control.oldest_writer().await.unwrap().unwrap();
    assert_eq!((oldest_writer.pid, oldest_writer.user.as_str()), (writer_pid, "postgres"));
    writer.batch_execute("PREPARE TRANSACTION 'left over'").await.unwrap();
    let prepared = control.oldest_writer().await.unwrap().unwrap();
    assert_eq!((prepared.pid, prepared.application.as_str()), (0, "left over"));
    writer.batch_execute("ROLLBACK PREPARED 'left over'").await.unwrap();
}
