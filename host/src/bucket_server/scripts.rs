//! The operations on a bucket as scripts of the server, each of which is done as a whole. A bucket is a hash of its
//! values, which also counts their bytes, and a sorted set of its keys by the time at which they expire, by the clock of
//! the server. Knows what is asked and answered; does not know connections.

use adit_engine::{Away, BucketAnswer, BucketCall, BucketOperation};

use super::resp::{self, Reply};

/// What all of them begin with. A key that has expired is as good as none, and is dropped when it is found.
const COMMON: &str = r"
local data, ends = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local never = 9007199254740991
local function till(ttl)
  if ttl == '' then return never end
  return now + tonumber(ttl)
end
local function weight(key)
  if redis.call('HEXISTS', data, 'k' .. key) == 0 then return 0 end
  return redis.call('HSTRLEN', data, 'k' .. key) + #key + 96
end
local function drop(key)
  local freed = weight(key)
  if freed > 0 then
    redis.call('HDEL', data, 'k' .. key)
    redis.call('HINCRBY', data, 'used', -freed)
  end
  redis.call('ZREM', ends, key)
end
local function find(key)
  local expires = redis.call('ZSCORE', ends, key)
  if expires and tonumber(expires) <= now then
    drop(key)
    return false
  end
  return redis.call('HGET', data, 'k' .. key)
end
local function used()
  return tonumber(redis.call('HGET', data, 'used') or '0')
end
local function put(key, value, expires, quota)
  local size = #value + #key + 96
  if used() - weight(key) + size > quota then
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1000)) do drop(old) end
    if used() - weight(key) + size > quota then return false end
  end
  redis.call('HINCRBY', data, 'used', size - weight(key))
  redis.call('HSET', data, 'k' .. key, value)
  redis.call('ZADD', ends, expires, key)
  return true
end
";

const GET: &str = "return find(ARGV[1])";

const PUT: &str = "
if put(ARGV[1], ARGV[2], till(ARGV[3]), tonumber(ARGV[4])) then return 'done' end
return 'full'";

const REMOVE: &str = "
drop(ARGV[1])
return 'done'";

/// Numbers stay texts, since those of Lua are not exact beyond 53 bits.
const INCREASE: &str = "
local key = ARGV[1]
local old = find(key)
if not old then
  if put(key, ARGV[2], till(ARGV[3]), tonumber(ARGV[4])) then return ARGV[2] end
  return 'full'
end
local sum = redis.pcall('HINCRBY', data, 'k' .. key, ARGV[2])
if type(sum) == 'table' then return 'not-a-number' end
local new = redis.call('HGET', data, 'k' .. key)
redis.call('HINCRBY', data, 'used', #new - #old)
return new";

const SWAP: &str = "
local current = find(ARGV[1])
local is_same = not current
if ARGV[2] == 'some' then is_same = current == ARGV[3] end
if not is_same then return {'differs', current} end
if put(ARGV[1], ARGV[4], never, tonumber(ARGV[5])) then return {'done'} end
return {'full'}";

const KEYS: &str = "
local found = redis.call('ZSCAN', ends, ARGV[1], 'COUNT', 1000)
local answer = {found[1]}
for at = 1, #found[2], 2 do
  if tonumber(found[2][at + 1]) > now then answer[#answer + 1] = found[2][at] end
end
return answer";

/// A time to live beyond this, a thousand years in milliseconds, is as good as none.
const LONGEST_TTL: u128 = 1000 * 366 * 86_400_000;

/// The command that does what is asked. `prefix` is what the names of all keys begin with. What stands between braces is
/// what servers of a cluster divide keys by, so that a bucket is on one of them.
pub(super) fn command(prefix: &str, call: &BucketCall) -> Vec<u8> {
    let BucketCall { plugin, bucket, quota, operation } = call;
    let name = format!("{prefix}:{{{plugin}/{bucket}}}");
    let (data, ends) = (format!("{name}:values"), format!("{name}:ends"));
    let quota = quota.to_string();
    let ttl = |ttl: &Option<std::time::Duration>| {
        let milliseconds = ttl.map(|ttl| ttl.as_millis()).filter(|ttl| *ttl <= LONGEST_TTL);
        milliseconds.map(|ttl| ttl.to_string()).unwrap_or_default()
    };
    let (script, arguments): (&str, Vec<Vec<u8>>) = match operation {
        BucketOperation::Get { key } => (GET, vec![key.clone().into()]),
        BucketOperation::Put { key, value, ttl: time } => {
            (PUT, vec![key.clone().into(), value.clone(), ttl(time).into(), quota.into()])
        }
        BucketOperation::Remove { key } => (REMOVE, vec![key.clone().into()]),
        BucketOperation::Increase { key, by, ttl: time } => {
            (INCREASE, vec![key.clone().into(), by.to_string().into(), ttl(time).into(), quota.into()])
        }
        BucketOperation::Swap { key, seen, value } => {
            let (is_there, seen) = match seen {
                Some(seen) => ("some", seen.clone()),
                None => ("none", Vec::new()),
            };
            (SWAP, vec![key.clone().into(), is_there.into(), seen, value.clone(), quota.into()])
        }
        BucketOperation::Keys { cursor } => (KEYS, vec![cursor.to_string().into()]),
    };
    let script = format!("{COMMON}{script}\n");
    let mut parts: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), b"2", data.as_bytes(), ends.as_bytes()];
    parts.extend(arguments.iter().map(Vec::as_slice));
    resp::command(&parts)
}

/// What a reply says.
///
/// # Errors
/// It is none to what was asked.
pub(super) fn answer(operation: &BucketOperation, reply: Reply) -> Result<BucketAnswer, Away> {
    let odd = |said: &str| Away { reason: format!("it says {said:?} to what it was asked") };
    let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (operation, reply) {
        (_, Reply::Error(reason)) => Err(Away { reason }),
        (BucketOperation::Get { .. }, Reply::Bytes(value)) => Ok(BucketAnswer::Value(value)),
        (_, Reply::Bytes(Some(said))) => match (operation, &*word(&said)) {
            (BucketOperation::Put { .. } | BucketOperation::Remove { .. }, "done") => Ok(BucketAnswer::Done),
            (_, "full") => Ok(BucketAnswer::Full),
            (BucketOperation::Increase { .. }, "not-a-number") => Ok(BucketAnswer::NotANumber),
            (BucketOperation::Increase { .. }, sum) => {
                sum.parse().map(BucketAnswer::Sum).map_err(|_| odd(sum))
            }
            (_, said) => Err(odd(said)),
        },
        (BucketOperation::Swap { .. }, Reply::List(list)) => {
            let mut list = list.into_iter();
            match (list.next(), list.next()) {
                (Some(Reply::Bytes(Some(said))), None) if said == b"done" => Ok(BucketAnswer::Done),
                (Some(Reply::Bytes(Some(said))), None) if said == b"full" => Ok(BucketAnswer::Full),
                (Some(Reply::Bytes(Some(said))), Some(Reply::Bytes(current))) if said == b"differs" => {
                    Ok(BucketAnswer::Differs(current))
                }
                _ => Err(odd("something else")),
            }
        }
        (BucketOperation::Keys { .. }, Reply::List(list)) => {
            let mut words = list.into_iter().filter_map(|reply| match reply {
                Reply::Bytes(bytes) => bytes.map(|bytes| word(&bytes)),
                Reply::Status(_) | Reply::Error(_) | Reply::Integer(_) | Reply::List(_) => None,
            });
            let cursor =
                words.next().and_then(|cursor| cursor.parse().ok()).ok_or_else(|| odd("no cursor"))?;
            Ok(BucketAnswer::Keys(words.collect(), (cursor != 0).then_some(cursor)))
        }
        (_, other) => Err(odd(&format!("{other:?}").chars().take(100).collect::<String>())),
    }
}
