//! A collection of a Milvus server, by its own protocol (gRPC) and the library of its makers.
//!
//! The row with `entity` i holds the vector of entity number i, in an HNSW index by inner products. The collection's property
//! `fissfuse` is a [`Mark`]: it is written when the collection is made, and once more when all rows are in it.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;

use milvus::v2::prelude::{
    AlterAliasRequest, AlterCollectionPropertiesRequest, ClientV2, CollectionSchema, ConnectConfig, ConsistencyLevel,
    CreateAliasRequest, CreateCollectionRequest, CreateIndexRequest, DataType, DescribeCollectionRequest,
    DescribeCollectionResponse, DropCollectionRequest, Error as MilvusError, FieldData, FieldSchema, FlushRequest,
    HasCollectionRequest, Ids, IndexParam, IndexType, InsertRequest, LoadCollectionRequest, MetricType, QueryRequest,
    RetryConfig, SearchRequest, SearchVectors, TelemetryConfig,
};
use tokio::runtime::{Builder, Runtime};

use super::database::{self, Server, There};
use super::engine::Filling;
use super::seal::{FOREIGN, Mark};
use super::{Access, Candidates, Collection, Found, Seal};
use crate::error::{Error, Result};
use crate::http::Secrets;
use crate::printable::excerpt;

/// As [`super::fill`].
pub fn fill(collection: &Collection, seal: &Seal, access: &Access, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    database::fill(Client::new(collection, access)?, seal, replace)
}

/// As [`super::open`].
pub fn open(collection: &Collection, seal: &Seal, access: &Access) -> Result<Arc<dyn Candidates>> {
    database::open(Client::new(collection, access)?, seal)
}

/// Numbers that go into one request, at most: 4 MB, a sixteenth of what a server takes by default.
const NUMBERS: usize = 1_000_000;

/// Of the collection's fields, and of the property that holds the mark.
const ENTITY: &str = "entity";
const VECTOR: &str = "vector";
const PROPERTY: &str = "fissfuse";

/// Attempts at a call that can be repeated.
const ATTEMPTS: u32 = 3;

/// Times the longest time of a call that all attempts at one may take, and all calls until an index is made or loaded: with 30
/// seconds, six hours.
const QUICK: u32 = ATTEMPTS;
const LONG: u32 = 720;

/// Speaks with one collection of a server.
#[derive(Clone)]
struct Client {
    /// One thread of its own: the connection is kept up between calls.
    runtime: Arc<Runtime>,
    client: ClientV2,
    collection: Collection,
    access: Access,
}

/// A result of the server's library.
type Said<T> = std::result::Result<T, MilvusError>;

impl Client {
    /// Connects. Fails if the server is down or does not know the key.
    pub fn new(collection: &Collection, access: &Access) -> Result<Client> {
        let shown = format!("Milvus at {}", collection.url());
        let fail = |reason: String| Error::device(&shown, "connecting", reason);
        reach(collection, access).map_err(|e| fail(format!("no answer: {e}; {DOWN}")))?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| fail(format!("cannot start a thread: {e}")))?;
        let mut config = ConnectConfig::new()
            .uri(collection.url())
            .secure(collection.secure)
            .connect_timeout(access.timeout)
            .rpc_timeout(access.timeout)
            .retry(RetryConfig::new().max_attempts(ATTEMPTS).max_retry_timeout(access.timeout))
            .telemetry(TelemetryConfig::new().enabled(false));
        if let Some(key) = &access.key {
            config.set_token(key);
        }
        if let Some(path) = &access.authorities {
            let path = path.to_str().ok_or_else(|| fail("--ca-file has a name that is not UTF-8".into()))?;
            config.set_ca_certificate(path);
        }
        let client = run(&runtime, access, QUICK, ClientV2::new(&config)).map_err(fail)?;
        Ok(Client { runtime: Arc::new(runtime), client, collection: collection.clone(), access: access.clone() })
    }

    /// The result of a call.
    fn call<T>(&self, doing: &str, call: impl Future<Output = Said<T>>) -> Result<T> {
        run(&self.runtime, &self.access, QUICK, call).map_err(|reason| self.error(doing, reason))
    }

    /// What the server says of the collection, or of that which its name is an alias of; `None` if there is none.
    fn describe(&self) -> Result<Option<DescribeCollectionResponse>> {
        self.call("looking at it", async {
            let has = HasCollectionRequest::builder().collection_name(self.name()).build()?;
            if !self.client.has_collection(has).await?.exists() {
                return Ok(None);
            }
            let describe = DescribeCollectionRequest::builder().collection_name(self.name()).build()?;
            self.client.describe_collection(describe).await.map(Some)
        })
    }

    /// A mark as the collection's properties hold it.
    fn properties(&self, doing: &str, mark: &Mark) -> Result<HashMap<String, String>> {
        let mark = serde_json::to_string(mark).map_err(|e| self.error(doing, e.to_string()))?;
        Ok(HashMap::from([(PROPERTY.to_string(), mark)]))
    }

    /// The same of one that asks again and again until the server has done what takes long.
    fn call_long<T>(&self, doing: &str, call: impl Future<Output = Said<T>>) -> Result<T> {
        run(&self.runtime, &self.access, LONG, call).map_err(|reason| self.error(doing, reason))
    }
}

impl Server for Client {
    fn shown(&self) -> String {
        format!("collection `{}` of Milvus at {}", self.collection.name, self.collection.url())
    }

    fn name(&self) -> &str {
        &self.collection.name
    }

    fn named(&self, name: &str) -> Client {
        let mut client = self.clone();
        client.collection.name = name.to_string();
        client
    }

    fn target(&self) -> Result<Option<String>> {
        let there = self.describe()?;
        let name = there.as_ref().map(|there| there.description().get_collection_name());
        Ok(name.filter(|&name| name != self.name()).map(str::to_string))
    }

    fn lead_to(&self, collection: &str, is_alias: bool) -> Result<()> {
        self.call("making it an alias of the new index", async {
            if is_alias {
                let request = AlterAliasRequest::builder().alias(self.name()).collection_name(collection);
                return self.client.alter_alias(request.build()?).await;
            }
            let request = CreateAliasRequest::builder().alias(self.name()).collection_name(collection);
            self.client.create_alias(request.build()?).await
        })
    }

    fn look(&self) -> Result<There> {
        let Some(there) = self.describe()? else { return Ok(There::Nothing) };
        let mark = there.description().get_properties().get(PROPERTY).and_then(|mark| serde_json::from_str(mark).ok());
        Ok(mark.map_or(There::Foreign(FOREIGN.into()), There::Ours))
    }

    fn delete(&self) -> Result<()> {
        self.call("deleting it", async {
            self.client.drop_collection(DropCollectionRequest::builder().collection_name(self.name()).build()?).await
        })
    }

    fn mark(&self, mark: &Mark) -> Result<()> {
        let doing = if mark.whole { "marking it as whole" } else { "marking it" };
        let properties = self.properties(doing, mark)?;
        self.call(doing, async {
            let request = AlterCollectionPropertiesRequest::builder().collection_name(self.name());
            self.client.alter_collection_properties(request.properties(properties).build()?).await
        })
    }

    fn create(&self, mark: &Mark) -> Result<()> {
        let (doing, width) = ("creating it", mark.seal.width as u32);
        let properties = self.properties(doing, mark)?;
        self.call(doing, async {
            let entity = FieldSchema::new().name(ENTITY).data_type(DataType::Int64).primary_key(true);
            let vector = FieldSchema::new().name(VECTOR).data_type(DataType::FloatVector).dimension(width);
            let schema = CollectionSchema::new().add_field(entity).add_field(vector);
            let request = CreateCollectionRequest::builder().collection_name(self.name()).schema(schema);
            let request = request.properties(properties);
            self.client.create_collection(request.consistency_level(ConsistencyLevel::Strong).build()?).await
        })
    }

    fn add(&mut self, first: usize, vectors: &[f32], Mark { seal, .. }: &Mark) -> Result<()> {
        let rows = (NUMBERS / seal.width).max(1);
        for (chunk, at) in vectors.chunks(rows * seal.width).zip((first..).step_by(rows)) {
            let rows: Vec<Vec<f32>> = chunk.chunks_exact(seal.width).map(<[f32]>::to_vec).collect();
            let entities = (at..at + rows.len()).map(|entity| entity as i64).collect();
            let columns = vec![FieldData::int64(ENTITY, entities), FieldData::float_vector(VECTOR, rows)];
            self.call(&format!("adding rows from number {at} on"), async {
                self.client
                    .insert(InsertRequest::builder().collection_name(self.name()).columns(columns).build()?)
                    .await
            })?;
        }
        Ok(())
    }

    /// Makes the index, and has it loaded for searches.
    fn index(&self) -> Result<()> {
        self.call_long("making its index", async {
            let flush = FlushRequest::builder().collection_names([self.name()]).build()?;
            self.client.flush(flush).await?;
            let parameters =
                [("M", "16"), ("efConstruction", "200")].map(|(name, value)| (name.to_string(), value.to_string()));
            let index = IndexParam::new().field_name(VECTOR).index_type(IndexType::Hnsw).metric_type(MetricType::Ip);
            let index = index.extra_params(HashMap::from(parameters));
            let request = CreateIndexRequest::builder().collection_name(self.name()).index_params(vec![index]);
            // Loading waits until it is made; Milvus Lite knows no other way to wait.
            self.client.create_index(request.sync(false).build()?).await
        })?;
        self.load()
    }

    fn load(&self) -> Result<()> {
        self.call_long("loading it", async {
            self.client.load_collection(LoadCollectionRequest::builder().collection_name(self.name()).build()?).await
        })
    }

    /// Of the loaded collection.
    fn ask(&self, doing: &str, queries: &[f32], k: usize, seal: &Seal) -> Result<Vec<Vec<Found>>> {
        let vectors: Vec<Vec<f32>> = queries.chunks_exact(seal.width).map(<[f32]>::to_vec).collect();
        let breadth = HashMap::from([("ef".to_string(), self.access.breadth_of(k).to_string())]);
        let answer = self.call(doing, async {
            let request = SearchRequest::builder().collection_name(self.name()).vector_field(VECTOR);
            let request = request.vectors(SearchVectors::Float(vectors)).limit(k as i64).metric_type(MetricType::Ip);
            self.client.search(request.extra_params(breadth).build()?).await
        })?;
        let found = answer.results().get_results().iter().map(|result| {
            let Ids::Int64(ids) = result.get_ids() else {
                return Err(self.error(doing, "it answers with names instead of numbers"));
            };
            let found = ids.iter().zip(result.get_scores());
            // What is no number of an entity is refused by who asks.
            let number = |id: i64| u32::try_from(id).unwrap_or(u32::MAX);
            Ok(found.map(|(&id, &product)| Found { number: number(id), product }).collect())
        });
        found.collect()
    }

    /// Of the loaded collection.
    fn count(&self) -> Result<usize> {
        let count = self.call("counting its rows", async {
            let request = QueryRequest::builder().collection_name(self.name()).output_fields(["count(*)"]);
            let answer = self.client.query(request.consistency_level(ConsistencyLevel::Strong).build()?).await?;
            Ok(answer.results().rows()?.next().and_then(|row| row.get_i64("count(*)").ok()))
        })?;
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.error("counting its rows", "the server gives no count"))
    }
}

const DOWN: &str = "is the server running, and is this its address (gRPC, port 19530 by default)?";

/// Fails at once if nobody listens there: the library would try again until the time is over.
fn reach(collection: &Collection, access: &Access) -> io::Result<()> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in collection.host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, access.timeout) {
            Ok(_) => return Ok(()),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Runs a call with its deadline; what went wrong and what to do, if something did.
fn run<T>(
    runtime: &Runtime,
    access: &Access,
    times: u32,
    call: impl Future<Output = Said<T>>,
) -> std::result::Result<T, String> {
    // The library repeats some calls: this is the end of all of them.
    let deadline = access.timeout.saturating_mul(times);
    match runtime.block_on(async { tokio::time::timeout(deadline, call).await }) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(advised(&error, access)),
        Err(_) => Err(slow(access)),
    }
}

fn slow(access: &Access) -> String {
    let seconds = access.timeout.as_secs_f64();
    format!("no answer within {seconds} s; is the server overloaded? --database-timeout gives it longer")
}

/// What the server or its library says, and what to do.
fn advised(error: &MilvusError, access: &Access) -> String {
    let secrets = Secrets::new(access.key.as_deref(), std::iter::empty());
    let told = excerpt(&secrets.redacted(error.to_string()));
    let says = |words: &[&str]| words.iter().any(|word| told.to_lowercase().contains(word));
    if matches!(error, MilvusError::Timeout(_)) || says(&["deadline", "timeout expired", "timed out"]) {
        return format!("{told}: {}", slow(access));
    }
    if says(&["transport error", "connection refused", "error trying to connect", "unavailable", "not ready"]) {
        return format!(
            "no answer: {told}; is the server running, and is this its address (gRPC, port 19530 by default)?"
        );
    }
    if says(&["unauthenticated", "auth check failure", "permission"]) {
        return format!("{told}; give its token by MILVUS_TOKEN, or name another variable");
    }
    if says(&["quota", "no space", "disk", "memory limit", "insufficient memory", "out of memory"]) {
        return format!("{told}; free disk or memory there, then run this again");
    }
    told
}
