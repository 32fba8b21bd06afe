//! `preflight`: whether init would work, without making anything.

use cdc_core::SourceTable;
use cdc_manifest::StorageSpec;
use cdc_wal::{PreflightReport, Source, Want};

use crate::Error;
use crate::settings::{Failover, LakeSettings, ReplicationSettings};

/// Sessions beside the COPY workers: control and the slot's.
const SESSIONS_BESIDE_WORKERS: u32 = 2;

/// What a deployment wants of its source: the tables that its rules do not leave out. What cannot
/// be replicated is among them, so that it is told.
pub(crate) fn want(replication: &ReplicationSettings, discovered: &[SourceTable]) -> Want {
    let decisions = cdc_governance::decide(discovered, &replication.rules);
    let wanted = discovered.iter().zip(decisions).filter(|(_, decision)| !decision.is_ruled_out());
    Want {
        tables: wanted.map(|(table, _)| table.clone()).collect(),
        publication: replication.publication.clone(),
        slot: replication.slot.clone(),
        failover: replication.failover == Failover::On,
        iam_auth: false,
        sessions: SESSIONS_BESIDE_WORKERS,
        types: replication.types.policy,
    }
}

/// The checks on the source for the tables that the rules include, and on the lake's root.
///
/// # Errors
/// When the source or the lake cannot be reached at all.
pub async fn preflight(
    lake: &LakeSettings,
    replication: &ReplicationSettings,
    source: &Source,
) -> Result<PreflightReport, Error> {
    let control = source.connect().await?;
    let discovered = control.discover(&replication.schemas).await?;
    let mut report = control.preflight(&want(replication, &discovered)).await?;
    report.checks.push(storage_check(lake).await);
    control.close().await;
    Ok(report)
}

async fn storage_check(lake: &LakeSettings) -> cdc_wal::Check {
    let probe = async {
        let store = cdc_manifest::LakeStore::open(&lake.storage)?;
        store.probe_cas().await?;
        Ok::<_, cdc_manifest::Error>(store.location().root().to_owned())
    };
    match probe.await {
        Ok(root) => cdc_wal::Check {
            name: "storage",
            status: cdc_wal::CheckStatus::Pass,
            detail: format!("{root} can be written, with compare-and-swap"),
            remediation: String::new(),
        },
        Err(error) => cdc_wal::Check {
            name: "storage",
            status: cdc_wal::CheckStatus::Fail,
            detail: cdc_core::chain(&error),
            remediation: remediation(&lake.storage).into(),
        },
    }
}

/// What makes a root usable that is not.
fn remediation(storage: &StorageSpec) -> &'static str {
    match storage {
        StorageSpec::Filesystem { .. } => "choose a root that this user may write (`storage.path`)",
        StorageSpec::Memory => "choose another `storage.type`",
        StorageSpec::S3(_) => {
            "check bucket, region, endpoint and credentials; the store must honour If-Match and If-None-Match"
        }
        StorageSpec::Gcs(_) => "check bucket and credentials",
        StorageSpec::Azure(_) => "check account, container and credentials",
    }
}
