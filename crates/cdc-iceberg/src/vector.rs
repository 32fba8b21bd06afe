//! Deletion vectors: the deleted rows of one data file as a blob of a Puffin file (Puffin spec,
//! `deletion-vector-v1`). Each lies in a file of its own: readers that know vectors by the file alone
//! give all of one file to each data file.
//!
//! ```text
//! length u32 BE │ D1 D3 39 64 │ 64-bit roaring bitmap, portable form │ CRC-32 u32 BE
//!               └──────── length bytes, under the checksum ────────┘
//! ```

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use iceberg::io::{MemoryStorage, Storage};
use iceberg::puffin::{
    Blob, CREATED_BY_PROPERTY, CompressionCodec, DELETION_VECTOR_V1, PuffinWriter,
};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat};
use roaring::RoaringTreemap;

use crate::live::{BlobRange, DELETE_POS_ID};
use crate::{Error, Result, RowSet};

/// What a vector begins with, behind its length.
const MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];
/// Bytes of the length and of the checksum.
const WORD: usize = 4;
/// Where the first blob of a Puffin file begins: behind the file's own magic.
const FIRST_OFFSET: u64 = 4;
/// The greatest row number of a data file; the key index has 32 bits for it.
const ROW_MAX: u64 = u32::MAX as u64;
/// Snapshot and sequence number of a blob that is written before its commit (Puffin spec).
const NOT_KNOWN: i64 = -1;

/// Why the bytes of a vector are not one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VectorError {
    /// Fewer bytes than the frame of an empty vector.
    #[error("{0} bytes are too few for a deletion vector")]
    Short(usize),
    /// The length at the front is another than that of the bytes.
    #[error("the length says {said} bytes, {found} are there")]
    Length {
        /// As the blob says.
        said: usize,
        /// As found.
        found: usize,
    },
    /// The magic is another.
    #[error("the magic bytes are not those of a deletion vector")]
    Magic,
    /// The checksum does not fit.
    #[error("the checksum does not fit")]
    Checksum,
    /// The bitmap cannot be read.
    #[error("the bitmap cannot be read")]
    Bitmap(#[source] std::io::Error),
    /// The manifest says another number of rows.
    #[error("the manifest says {said} rows, the vector has {found}")]
    Rows {
        /// As the manifest says.
        said: u64,
        /// As found.
        found: u64,
    },
    /// A row number that no file of a lake reaches.
    #[error("row {0} is beyond the end of any data file")]
    Beyond(u64),
}

/// The blob of a set of rows.
pub(crate) fn encode_vector(rows: &RowSet) -> std::io::Result<Vec<u8>> {
    let mut bitmap = RoaringTreemap::new();
    bitmap.append(rows.iter()).map_err(std::io::Error::other)?;
    bitmap.optimize();
    frame(&bitmap)
}

fn frame(bitmap: &RoaringTreemap) -> std::io::Result<Vec<u8>> {
    let body = MAGIC.len() + bitmap.serialized_size();
    let length = u32::try_from(body).map_err(std::io::Error::other)?;
    let mut bytes = Vec::with_capacity(WORD + body + WORD);
    bytes.extend(length.to_be_bytes());
    bytes.extend(MAGIC);
    bitmap.serialize_into(&mut bytes)?;
    let checksum = crc32fast::hash(&bytes[WORD..]);
    bytes.extend(checksum.to_be_bytes());
    Ok(bytes)
}

/// The rows of a blob, ascending. `rows` is their number as the manifest has it, so that a broken
/// blob cannot ask for more memory than the manifest announces.
pub(crate) fn decode_vector(bytes: &[u8], rows: u64) -> Result<Vec<u64>, VectorError> {
    let short = || VectorError::Short(bytes.len());
    let (length, rest) = bytes.split_first_chunk::<WORD>().ok_or_else(short)?;
    let (body, checksum) = rest.split_last_chunk::<WORD>().ok_or_else(short)?;
    let said = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if said != body.len() {
        return Err(VectorError::Length { said, found: body.len() });
    }
    if crc32fast::hash(body) != u32::from_be_bytes(*checksum) {
        return Err(VectorError::Checksum);
    }
    let bitmap = body.strip_prefix(&MAGIC).ok_or(VectorError::Magic)?;
    let bitmap = RoaringTreemap::deserialize_from(bitmap).map_err(VectorError::Bitmap)?;
    if bitmap.len() != rows {
        return Err(VectorError::Rows { said: rows, found: bitmap.len() });
    }
    match bitmap.max() {
        // a set of rows takes one bit for each row up to the greatest
        Some(row) if row > ROW_MAX => Err(VectorError::Beyond(row)),
        _ => Ok(bitmap.iter().collect()),
    }
}

/// The vector of one data file, ready to be written.
pub(crate) struct Vector {
    pub(crate) data_file: String,
    pub(crate) rows: u64,
    pub(crate) blob: Vec<u8>,
}

/// The vectors of data files, in the order of their locations. Blocks for as long as bitmaps take.
pub(crate) fn encode_vectors(
    location: &str,
    rows: BTreeMap<String, RowSet>,
) -> Result<Vec<Vector>> {
    rows.into_iter()
        .map(|(data_file, rows)| {
            let blob = encode_vector(&rows).map_err(Error::format(location, "deletion vector"))?;
            Ok(Vector { data_file, rows: rows.len(), blob })
        })
        .collect()
}

/// The Puffin file of a vector, and where it lies in it.
pub(crate) async fn encode_puffin(location: &str, vector: &Vector) -> Result<(Bytes, BlobRange)> {
    const NAME: &str = "vectors";
    let memory = MemoryStorage::new();
    let wrong = || Error::format(location, "deletion vector file");
    let properties = HashMap::from([(CREATED_BY_PROPERTY.to_owned(), "pgcdc".to_owned())]);
    let output = memory.new_output(NAME).map_err(wrong())?;
    let mut writer = PuffinWriter::new(&output, properties, false).await.map_err(wrong())?;
    let properties = HashMap::from([
        ("referenced-data-file".to_owned(), vector.data_file.clone()),
        ("cardinality".to_owned(), vector.rows.to_string()),
    ]);
    let blob = Blob::builder()
        .r#type(DELETION_VECTOR_V1.to_owned())
        .fields(vec![DELETE_POS_ID])
        .snapshot_id(NOT_KNOWN)
        .sequence_number(NOT_KNOWN)
        .data(vector.blob.clone())
        .properties(properties)
        .build();
    writer.add(blob, CompressionCodec::None).await.map_err(wrong())?;
    writer.close().await.map_err(wrong())?;
    let range = BlobRange { offset: FIRST_OFFSET, length: vector.blob.len() as u64 };
    Ok((memory.read(NAME).await.map_err(wrong())?, range))
}

/// The manifest entry of a vector in a Puffin file of `size` bytes.
pub(crate) fn describe_vector(
    location: &str,
    size: u64,
    vector: &Vector,
    range: BlobRange,
) -> Result<DataFile> {
    DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(location.to_owned())
        .file_format(DataFileFormat::Puffin)
        .record_count(vector.rows)
        .file_size_in_bytes(size)
        .partition_spec_id(0)
        .referenced_data_file(Some(vector.data_file.clone()))
        .content_offset(Some(range.offset.cast_signed()))
        .content_size_in_bytes(Some(range.length.cast_signed()))
        .build()
        .map_err(Error::format(location, "deletion vector"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(rows: impl IntoIterator<Item = u64>) -> Vec<u8> {
        encode_vector(&rows.into_iter().collect()).unwrap()
    }

    #[test]
    fn vectors_round_trip() {
        for rows in [vec![], vec![0], vec![3, 70_000, 70_001], (5..9000).collect::<Vec<u64>>()] {
            let count = rows.len() as u64;
            assert_eq!(decode_vector(&blob(rows.clone()), count).unwrap(), rows);
        }
    }

    #[test]
    fn the_frame_is_the_one_of_the_specification() {
        let bytes = blob([1, 4]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // one bitmap under key 0: cookie 3a30, one container of two values at offset 16
        let expected = "00000024d1d33964010000000000000000000000\
                        3a300000010000000000010010000000010004";
        assert!(hex.starts_with(expected), "{hex}");
        assert_eq!(bytes.len(), 4 + 0x24 + 4);
    }

    #[test]
    fn broken_vectors_are_refused_and_never_panic() {
        let whole = blob([1, 2, 3, 70_000]);
        let far = frame(&RoaringTreemap::from_iter([1 << 40])).unwrap();
        assert!(matches!(decode_vector(&far, 1), Err(VectorError::Beyond(_))));
        assert!(matches!(decode_vector(&whole, 3), Err(VectorError::Rows { said: 3, found: 4 })));
        for end in 0..whole.len() {
            assert!(decode_vector(&whole[..end], 4).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x40;
            assert!(decode_vector(&broken, 4).is_err(), "byte {at}");
        }
    }

    #[tokio::test]
    async fn a_puffin_file_names_its_vector_where_the_manifest_says() {
        let rows = RowSet::from_iter(0..5000);
        let file = "file:///lake/a".to_owned();
        let named = BTreeMap::from([(file.clone(), rows.clone())]);
        let vectors = encode_vectors("file:///lake/p", named).unwrap();
        let (bytes, range) = encode_puffin("file:///lake/p", &vectors[0]).await.unwrap();
        let memory = MemoryStorage::new();
        memory.write("p", bytes.clone()).await.unwrap();
        let reader = iceberg::puffin::PuffinReader::new(memory.new_input("p").unwrap());
        let footer = reader.file_metadata().await.unwrap();
        let [blob] = footer.blobs() else { panic!("{} blobs", footer.blobs().len()) };
        assert_eq!((blob.offset(), blob.length()), (range.offset, range.length));
        assert_eq!(blob.blob_type(), DELETION_VECTOR_V1);
        assert_eq!(blob.properties()["referenced-data-file"], file);
        assert_eq!(blob.properties()["cardinality"], rows.len().to_string());
        let at = usize::try_from(range.offset).unwrap();
        let body = &bytes[at..at + usize::try_from(range.length).unwrap()];
        let decoded = decode_vector(body, rows.len()).unwrap();
        assert_eq!(decoded, rows.iter().collect::<Vec<_>>());
    }
}
