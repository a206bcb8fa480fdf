// SPDX-License-Identifier: Apache-2.0
// Makes sigstore-js.json: bundles by the packages @sigstore/sign 4.1 and @sigstore/bundle 4.0, and what @sigstore/oci 0.6
// pushes around one of them. Not run by the tests.
//
//   npm install @sigstore/sign @sigstore/bundle @sigstore/oci promise-retry
//   node make.js HOST:PORT/REPOSITORY IMAGE-DIGEST USER PASSWORD > sigstore-js.json
//
// The registry must have the image, speak TLS (NODE_EXTRA_CA_CERTS names its root), and want the password.
const crypto = require('crypto');
const https = require('https');
const { DSSEBundleBuilder } = require('@sigstore/sign');
const { bundleToJSON } = require('@sigstore/bundle');
const { attachArtifactToImage } = require('@sigstore/oci');

const BUILDER = 'https://ci.example/builder';
const [imageName, imageDigest, username, password] = process.argv.slice(2);
const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
const pem = publicKey.export({ type: 'spki', format: 'pem' });
const hint = crypto.createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
const signer = {
  sign: async (data) => ({
    signature: crypto.sign('sha256', data, privateKey),
    key: { $case: 'publicKey', publicKey: pem, hint },
  }),
};

async function bundle(predicateType, predicate) {
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: imageName, digest: { sha256: imageDigest.replace('sha256:', '') } }],
    predicateType,
    predicate,
  };
  const artifact = { data: Buffer.from(JSON.stringify(statement)), type: 'application/vnd.in-toto+json' };
  return bundleToJSON(await new DSSEBundleBuilder({ signer, witnesses: [] }).create(artifact));
}

function get(path) {
  const [host, ...repository] = imageName.split('/');
  const headers = {
    Accept: 'application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json',
    Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
  };
  return new Promise((resolve) =>
    https.get(`https://${host}/v2/${repository.join('/')}/manifests/${path}`, { headers }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('end', () => resolve(Buffer.concat(parts).toString()));
    }),
  );
}

async function main() {
  const sign = await bundle('https://sigstore.dev/cosign/sign/v1', {});
  const provenance = await bundle('https://slsa.dev/provenance/v1', {
    buildDefinition: { buildType: 'https://ci.example/type', externalParameters: {} },
    runDetails: { builder: { id: BUILDER } },
  });
  const attached = await attachArtifactToImage({
    imageName,
    imageDigest,
    artifact: Buffer.from(JSON.stringify(sign)),
    mediaType: sign.mediaType,
    annotations: { 'dev.sigstore.bundle.content': 'dsse-envelope' },
    credentials: { username, password },
  });
  const index = await get(imageDigest.replace(':', '-'));
  const manifest = await get(attached.digest);
  console.log(JSON.stringify({ imageDigest, pem, builder: BUILDER, sign, provenance, manifest, index }, null, 1));
}

main();
