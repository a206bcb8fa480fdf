// SPDX-License-Identifier: Apache-2.0
// Makes the bundles beside it with the libraries of sigstore-js, against services of its own; asks no network:
//
//   npm install @sigstore/sign@4.1.1 @sigstore/bundle@4.0.0 @sigstore/mock@0.12.1
//   node make.mjs DIRECTORY
//
//   root.json        whom to believe: authority, certificate log, transparency log, authority for time stamps
//   statement.json   what cosign 3 writes: a statement about an image, entered as dsse 0.0.1, time by the log's promise
//   message.json     a signature of the manifest itself, entered as hashedrekord 0.0.1, time by the log's promise
//   stamped.json     the statement again, as a log of version 2 enters it (hashedrekord 0.0.2, Ed25519), time by a time stamp
//
// The mock of the log keeps what it is sent, in a tree of one leaf. A real one keeps less of an envelope, and has a path from
// leaf to checkpoint: both are made here. sigstore-js writes signatures of messages in version 0.2; here it is 0.3.
import { bundleToJSON, toMessageSignatureBundle } from '@sigstore/bundle';
import { fulcioHandler, initializeCA, initializeCTLog, initializeTLog, initializeTSA, tsaHandler } from '@sigstore/mock';
import { DSSEBundleBuilder, FulcioSigner, MessageSignatureBundleBuilder, TSAWitness } from '@sigstore/sign';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import nock from 'nock';

const IDENTITY = 'https://git.example/team/app/.ci/release.yml@refs/heads/main';
const ISSUER = 'https://tokens.git.example';
const MANIFEST = Buffer.from('{"schemaVersion":2}');
const STATEMENT_TYPE = 'application/vnd.in-toto+json';
const START = '2020-01-01T00:00:00Z';

const target = process.argv[2];
const sha256 = (data) => crypto.createHash('sha256').update(data).digest();
const b64 = (data) => Buffer.from(data).toString('base64');
const der = (pem) => Buffer.from(pem.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64');
const newKey = () => crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
const spki = (pair) => pair.publicKey.export({ format: 'der', type: 'spki' });

const keys = { authority: newKey(), seen: newKey(), log: newKey(), stamp: newKey() };
keys.second = crypto.generateKeyPairSync('ed25519');
// Logs of version 2 are called by the key of their checkpoints (C2SP signed-note), others by their whole key.
const secondId = sha256(Buffer.concat([Buffer.from('second.example\n\u0001'), spki(keys.second).subarray(-32)]));
const authority = await initializeCA(keys.authority, await initializeCTLog(keys.seen));
const log = await initializeTLog('https://log.example', keys.log);
const stamper = await initializeTSA(keys.stamp);

function serve(url, handler) {
  nock(url).persist().post(handler.path).reply(async (_, body) => {
    const { statusCode, response, contentType } = await handler.fn(typeof body === 'string' ? body : JSON.stringify(body));
    return [statusCode, response, { 'Content-Type': contentType }];
  });
}
serve('https://authority.example', fulcioHandler(authority));
serve('https://stamp.example', tsaHandler(stamper));

const part = (value) => b64(JSON.stringify(value)).replace(/=+$/, '');
const token = `${part({ alg: 'none' })}.${part({ iss: ISSUER, sub: IDENTITY })}.`;
const signer = () =>
  new FulcioSigner({ fulcioBaseURL: 'https://authority.example', identityProvider: { getToken: async () => token } });

// A witness: has the log enter what `body` makes of the content and the certificate.
const enter = (body, isSecond) => ({
  async testify(content, certificate) {
    // As a log writes them: with an end of line.
    const made = body(content, new crypto.X509Certificate(certificate).toString());
    const [entry] = Object.values(await log.log(made));
    const { signedEntryTimestamp } = entry.verification;
    const logId = isSecond ? secondId : Buffer.from(entry.logID, 'hex');
    const leaf = (data) => sha256(Buffer.concat([Buffer.from([0]), data]));
    const sibling = leaf(Buffer.from('first'));
    const body64 = Buffer.from(entry.body, 'base64');
    const rootHash = sha256(Buffer.concat([Buffer.from([1]), sibling, leaf(body64)]));
    const origin = isSecond ? 'second.example' : 'log.example';
    const note = `${origin}\n2\n${b64(rootHash)}\n`;
    const signed = isSecond
      ? crypto.sign(null, Buffer.from(note), keys.second.privateKey)
      : crypto.sign('sha256', Buffer.from(note), keys.log.privateKey);
    const noteSignature = Buffer.concat([logId.subarray(0, 4), signed]);
    return {
      tlogEntries: [
        {
          logIndex: String(entry.logIndex),
          logId: { keyId: logId },
          kindVersion: { kind: made.kind, version: made.apiVersion },
          integratedTime: isSecond ? '0' : String(entry.integratedTime),
          inclusionPromise: isSecond ? undefined : { signedEntryTimestamp: Buffer.from(signedEntryTimestamp, 'base64') },
          inclusionProof: {
            logIndex: '1',
            rootHash,
            treeSize: '2',
            hashes: [sibling],
            checkpoint: { envelope: `${note}\n\u2014 ${origin} ${b64(noteSignature)}\n` },
          },
          canonicalizedBody: body64,
        },
      ],
    };
  },
});

function dsseBody({ dsseEnvelope }, certificate) {
  const { payload, payloadType, signatures } = dsseEnvelope;
  const written = JSON.stringify({ payload: b64(payload), payloadType, signatures: [{ sig: b64(signatures[0].sig) }] });
  return {
    apiVersion: '0.0.1',
    kind: 'dsse',
    spec: {
      envelopeHash: { algorithm: 'sha256', value: sha256(written).toString('hex') },
      payloadHash: { algorithm: 'sha256', value: sha256(payload).toString('hex') },
      signatures: [{ signature: b64(signatures[0].sig), verifier: b64(certificate) }],
    },
  };
}

function messageBody({ messageSignature }, certificate) {
  return {
    apiVersion: '0.0.1',
    kind: 'hashedrekord',
    spec: {
      data: { hash: { algorithm: 'sha256', value: messageSignature.messageDigest.digest.toString('hex') } },
      signature: { content: b64(messageSignature.signature), publicKey: { content: b64(certificate) } },
    },
  };
}

function secondBody({ dsseEnvelope }, certificate) {
  const { payload, payloadType, signatures } = dsseEnvelope;
  const signed = Buffer.concat([Buffer.from(`DSSEv1 ${payloadType.length} ${payloadType} ${payload.length} `), payload]);
  const rawBytes = b64(der(certificate));
  return {
    apiVersion: '0.0.2',
    kind: 'hashedrekord',
    spec: {
      hashedRekordV002: {
        data: { algorithm: 'SHA2_256', digest: b64(sha256(signed)) },
        signature: {
          content: b64(signatures[0].sig),
          verifier: { keyDetails: 'PKIX_ECDSA_P256_SHA_256', x509Certificate: { rawBytes } },
        },
      },
    },
  };
}

class MessageBuilder extends MessageSignatureBundleBuilder {
  async package({ data }, { signature, key }) {
    return toMessageSignatureBundle({ digest: sha256(data), signature, certificate: der(key.certificate) });
  }
}

const statement = {
  type: STATEMENT_TYPE,
  data: Buffer.from(
    JSON.stringify({
      _type: 'https://in-toto.io/Statement/v1',
      subject: [{ digest: { sha256: sha256(MANIFEST).toString('hex') } }],
      predicateType: 'https://sigstore.dev/cosign/sign/v1',
      predicate: {},
    }),
  ),
};
const write = (name, value) => fs.writeFileSync(path.join(target, name), `${JSON.stringify(value, null, 1)}\n`);
const stamp = new TSAWitness({ tsaBaseURL: 'https://stamp.example' });

const made = {
  'statement.json': await new DSSEBundleBuilder({ signer: signer(), witnesses: [enter(dsseBody, false)] }).create(statement),
  'message.json': await new MessageBuilder({
    signer: signer(),
    witnesses: [enter(messageBody, false)],
  }).create({ data: MANIFEST }),
  'stamped.json': await new DSSEBundleBuilder({
    signer: signer(),
    witnesses: [enter(secondBody, true), stamp],
  }).create(statement),
};
for (const [name, bundle] of Object.entries(made)) write(name, bundleToJSON(bundle));

const logOf = (pair, url, keyId = sha256(spki(pair)), keyDetails = 'PKIX_ECDSA_P256_SHA_256') => ({
  baseUrl: url,
  hashAlgorithm: 'SHA2_256',
  publicKey: { rawBytes: b64(spki(pair)), keyDetails, validFor: { start: START } },
  logId: { keyId: b64(keyId) },
});
const authorityOf = (url, ...certificates) => ({
  subject: { organization: 'sigstore.mock', commonName: 'sigstore' },
  uri: url,
  certChain: { certificates: certificates.map((data) => ({ rawBytes: b64(data) })) },
  validFor: { start: START },
});
write('root.json', {
  mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
  tlogs: [
    logOf(keys.log, 'https://log.example'),
    logOf(keys.second, 'https://second.example', secondId, 'PKIX_ED25519'),
  ],
  certificateAuthorities: [authorityOf('https://authority.example', authority.rootCertificate)],
  ctlogs: [logOf(keys.seen, 'https://seen.example')],
  timestampAuthorities: [authorityOf('https://stamp.example', stamper.intCertificate, stamper.rootCertificate)],
});
