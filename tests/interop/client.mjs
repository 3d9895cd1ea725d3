// A client of the bus, written from schemas/WIRE_PROFILE.md alone with npm `jose`: proof that the page suffices.
//
// Standard input holds one job in JSON:
//   {base_url, bus, agency, key: private JWK, service, purpose, body, sub?, case?, idempotency_key?, respond_async?}
// Standard output gets the verified outcome in JSON. Exit status: 0 an outcome or a signed problem, 2 the reply had to
// be refused, 1 anything else; the reason is one line on standard error.

import { createHash, randomUUID } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { CompactSign, calculateJwkThumbprint, compactVerify, importJWK } from 'jose'

const HEADER_LIMIT = 8192
const ALGORITHMS = { EC: ['ES256'], OKP: ['Ed25519', 'EdDSA'], RSA: ['PS256'] }
const FINAL = ['done', 'refused', 'failed', 'expired']

class ReplyRefused extends Error {}

function must(holds, reason) {
  if (!holds) throw new ReplyRefused(reason)
}

const sha256 = (bytes, encoding) => createHash('sha256').update(bytes).digest(encoding)
const contentDigest = (body) => `sha-256=:${sha256(body, 'base64')}:`

/** One signed call and its verified reply. */
async function exchangeOnce(job, keys, method, path, { body, idempotencyKey, purpose, prefer } = {}) {
  const target = job.base_url + path
  const now = Math.floor(Date.now() / 1000)
  const payload = body === undefined ? Buffer.alloc(0) : Buffer.from(JSON.stringify(body))
  const claims = {
    iss: job.agency,
    aud: job.bus,
    iat: now,
    exp: now + 60,
    jti: randomUUID(),
    method,
    target_uri: target,
    content_digest: contentDigest(payload),
    content_type: body === undefined ? undefined : 'application/json',
    idempotency_key: idempotencyKey,
    purpose,
    sub: purpose && job.sub,
    case: purpose && job.case,
  }
  const alg = ALGORITHMS[job.key.kty][0]
  const kid = await calculateJwkThumbprint(job.key)
  const jws = await new CompactSign(Buffer.from(JSON.stringify(claims)))
    .setProtectedHeader({ alg, kid, typ: 'gsb-req+jwt' })
    .sign(await importJWK(job.key, alg))

  const headers = { 'GSB-Signature': jws, 'Accept-Encoding': 'identity' }
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  if (idempotencyKey !== undefined) headers['Idempotency-Key'] = `"${idempotencyKey}"`
  if (prefer) headers.Prefer = prefer
  const response = await fetch(target, {
    method,
    headers,
    body: body === undefined ? undefined : payload,
    redirect: 'manual',
  })
  const received = Buffer.from(await response.arrayBuffer())
  const signed = await verifyReply(response, received, { job, keys, jti: claims.jti, jws })
  return { signed, response, body: received.length ? JSON.parse(received.toString('utf8')) : null }
}

/** Strict base64url, strict JSON object without duplicate members. The values are flat, so counting names suffices. */
function object(part, what) {
  must(/^[A-Za-z0-9_-]+$/.test(part), `${what} is not base64url`)
  const bytes = Buffer.from(part, 'base64url')
  must(bytes.toString('base64url') === part, `${what} is not strict base64url`)
  let value
  const json = bytes.toString('utf8')
  try {
    value = JSON.parse(json)
  } catch {
    throw new ReplyRefused(`${what} is not JSON`)
  }
  must(value !== null && typeof value === 'object' && !Array.isArray(value), `${what} is not a JSON object`)
  const names = [...json.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?/g)].filter((match) => match[1])
  must(names.length === Object.keys(value).length, `${what} has duplicate members`)
  return value
}

/** The checks of "Believing a reply", in the order of the page. Returns the reply's claims. */
async function verifyReply(response, body, { job, keys, jti, jws }) {
  const token = response.headers.get('GSB-Signature')
  must(token !== null, `the reply (status ${response.status}) is not signed`)
  must(token.length <= HEADER_LIMIT, 'GSB-Signature is larger than 8192 bytes')
  const parts = token.split('.')
  must(parts.length === 3, 'GSB-Signature is not a compact JWS')
  const header = object(parts[0], 'the JOSE header')
  const claims = object(parts[1], 'the claims')

  must(Object.keys(header).sort().join() === 'alg,kid,typ', 'the JOSE header is not exactly alg, kid and typ')
  must(header.typ === 'gsb-res+jwt', 'typ is not gsb-res+jwt')
  const key = keys.get(header.kid)
  must(key !== undefined, 'kid is not a key of the bus')
  must(ALGORITHMS[key.kty].includes(header.alg), 'alg is not that of the key')
  try {
    await compactVerify(token, await importJWK(key, header.alg), { algorithms: [header.alg] })
  } catch {
    throw new ReplyRefused('the signature does not verify')
  }

  must(claims.iss === job.bus, 'iss is not the bus')
  must(claims.aud === job.agency, 'aud is not this agency')
  must(Number.isInteger(claims.iat) && Math.abs(claims.iat - Date.now() / 1000) <= 120, 'iat is not now')
  must(claims.req_jti === jti, 'req_jti is not the jti of this request')
  must(claims.req_hash === sha256(jws, 'base64url'), 'req_hash is not the hash of this request')
  must(claims.status === response.status, 'status is not the HTTP status')
  must(claims.content_digest === contentDigest(body), 'content_digest is not the digest of the body')
  const contentType = body.length ? response.headers.get('Content-Type') : null
  must((claims.content_type ?? null) === contentType, 'content_type is not the Content-Type')
  must((claims.exchange === undefined) === (claims.state === undefined), 'exchange and state do not stand together')
  must(FINAL.includes(claims.state) === (claims.effect !== undefined), 'effect does not stand with a final state')
  return claims
}

/** The bus's keys by their thumbprint; kinds that this program does not know are left out. */
async function busKeys(baseUrl) {
  const { protocol, hostname } = new URL(baseUrl)
  if (protocol !== 'https:' && !['127.0.0.1', '[::1]', 'localhost'].includes(hostname)) {
    throw new Error('keys are fetched only over TLS or from a loopback address')
  }
  const response = await fetch(`${baseUrl}/.well-known/jwks.json`, { redirect: 'error' })
  if (!response.ok) throw new Error(`no keys: status ${response.status}`)
  const known = (await response.json()).keys.filter((key) => key.kty in ALGORITHMS)
  return new Map(await Promise.all(known.map(async (key) => [await calculateJwkThumbprint(key), key])))
}

async function main() {
  const job = JSON.parse(await text(process.stdin))
  const keys = await busKeys(job.base_url)
  let reply = await exchangeOnce(job, keys, 'POST', `/services/${job.service}`, {
    body: job.body,
    idempotencyKey: job.idempotency_key,
    purpose: job.purpose,
    prefer: job.respond_async ? 'respond-async' : undefined,
  })
  let requests = 1
  const { exchange } = reply.signed
  while (reply.signed.status === 202) {
    await pause(1000 * Number(reply.response.headers.get('Retry-After') ?? 1))
    reply = await exchangeOnce(job, keys, 'GET', `/exchanges/${exchange}/reply`, { prefer: 'wait=20' })
    must(reply.signed.exchange === exchange, 'the reply speaks of another exchange')
    requests += 1
  }
  const { status, state, effect, entry } = reply.signed
  if (status < 300) must(FINAL.includes(state), 'success without a final state')
  const replayed = reply.response.headers.get('Idempotent-Replayed') === 'true'
  console.log(JSON.stringify({ status, exchange, state, effect, entry, replayed, requests, body: reply.body }))
}

try {
  await main()
} catch (error) {
  console.error(error instanceof ReplyRefused ? `refused: ${error.message}` : `failed: ${error.message}`)
  process.exitCode = error instanceof ReplyRefused ? 2 : 1
}
