// A service that people sign in at, and an MCP server that takes its tokens alone: `oauth-service.mjs AS_PORT MCP_PORT
// [OPTIONS]`. The service is oidc-provider: registration, S256, resource indicators, the issuer in answers, single-use
// refresh tokens whose reuse revokes all that was granted, revocation. OPTIONS is JSON: { ttl, dynamic, client, says, fails,
// hides, metadata, refusesResource, refuses, behind, device, documents }: `hides` takes members out of its metadata,
// `metadata` puts others there, `refusesResource` makes it refuse every resource, `behind` is the port at which people and the
// bridge find it, if it is another one, `device` with its `interval` lets people enter codes (`slow` says how often it asks to be
// asked less), `documents` makes it read the metadata documents of clients.
//
// At /-/counts of the service it says how often what was called. At /-/set/JSON it is told of how long it says that tokens
// last (`says`), with which status it answers whoever asks for tokens (`fails`), how many tokens the server refuses
// that are good (`refuses`) once it has taken some (`lets`), which scopes it demands (`demands`), and how many calls ask their
// client whether it is there while they work (`pings`), whose answer is refused.

import express from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { requireBearerAuth } from '@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js';
import { InvalidTokenError } from '@modelcontextprotocol/sdk/server/auth/errors.js';
import { EmptyResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const [asPort, mcpPort, written] = process.argv.slice(2);
const options = { ttl: 3600, dynamic: true, ...JSON.parse(written ?? '{}') };
const issuer = `http://127.0.0.1:${options.behind ?? asPort}`;
const resource = `http://127.0.0.1:${mcpPort}/mcp`;
const counts = {};
const count = (name) => (counts[name] = (counts[name] ?? 0) + 1);

const provider = new Provider(issuer, {
  clients: options.client ? [options.client] : [],
  cookies: { keys: ['a key of a test'] },
  // Clients of this machine have documents, too, which may take their time.
  fetch: (url, { dispatcher, signal, ...asked }) => fetch(url, asked),
  pkce: { required: () => true },
  scopes: ['openid', 'email', 'offline_access', 'read', 'write'],
  claims: { openid: ['sub'], email: ['email'] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) }),
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  ttl: { AccessToken: () => options.ttl, Grant: 86400, Session: 86400, Interaction: 600, IdToken: 3600, RefreshToken: 86400 },
  features: {
    registration: { enabled: options.dynamic },
    revocation: { enabled: true },
    deviceFlow: { enabled: options.device !== undefined },
    clientIdMetadataDocument: { enabled: options.documents === true, ack: 'draft-02' },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, audience) => {
        if (options.refusesResource) throw new errors.InvalidTarget();
        return {
          scope: 'read write',
          audience,
          accessTokenTTL: options.ttl,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        };
      },
    },
  },
});
provider.use(async (ctx, next) => {
  if (ctx.path === '/-/counts') return void (ctx.body = counts);
  if (ctx.path.startsWith('/-/set/')) {
    Object.assign(options, JSON.parse(decodeURIComponent(ctx.path.slice('/-/set/'.length))));
    return void (ctx.body = {});
  }
  if (ctx.path === '/token' && options.fails) {
    count(`token failed ${options.fails}`);
    if (options.fails === 400) ctx.body = { error: 'invalid_grant', error_description: 'canary' };
    return void (ctx.status = options.fails);
  }
  await next();
  // Its pages ask for letters from elsewhere.
  if (typeof ctx.body === 'string') ctx.body = ctx.body.replace(/@import url[^;]*;/, '');
  if (ctx.path.startsWith('/.well-known/')) {
    for (const name of options.hides ?? []) delete ctx.body?.[name];
    Object.assign(ctx.body ?? {}, options.metadata);
  }
  if (ctx.path === '/device/auth') ctx.body.interval = options.device.interval;
  if (ctx.body?.error === 'authorization_pending' && options.slow > 0) {
    options.slow -= 1;
    ctx.body = { error: 'slow_down' };
    count('slow_down');
  }
  if (ctx.path === '/token' && options.says !== undefined) ctx.body.expires_in = options.says;
  if (ctx.path === '/token') count(`token ${ctx.oidc?.params?.grant_type} ${ctx.status}`);
  else if (ctx.path.startsWith('/token/') || ctx.path === '/reg') count(`${ctx.path} ${ctx.status}`);
});

const keys = createRemoteJWKSet(new URL(`${issuer}/jwks`));
const verifier = {
  async verifyAccessToken(token) {
    if (options.lets > 0) options.lets -= 1;
    else if (options.refuses > 0) {
      options.refuses -= 1;
      count('refused by the server');
      throw new InvalidTokenError('not now');
    }
    const verified = await jwtVerify(token, keys, { issuer, audience: resource }).catch(() => undefined);
    if (!verified) throw new InvalidTokenError('not a token for this server');
    const { sub, scope, exp, client_id } = verified.payload;
    return { token, clientId: client_id, scopes: (scope ?? '').split(' '), expiresAt: exp, extra: { sub } };
  },
};

const app = express();
const metadata = `/.well-known/oauth-protected-resource/mcp`;
app.get(metadata, (_, response) =>
  response.json({ resource, authorization_servers: [issuer], scopes_supported: ['read', 'write'] }));
const resourceMetadataUrl = new URL(metadata, resource).href;
const auth = (request, response, next) =>
  requireBearerAuth({ verifier, requiredScopes: options.demands ?? ['read'], resourceMetadataUrl })(request, response, next);
app.post('/mcp', auth, express.json(), async (request, response) => {
  const server = new McpServer({ name: 'guarded', version: '1' });
  server.registerTool('whoami', { description: 'Says whose token it got.' }, async ({ authInfo, sendRequest }) => {
    count('work');
    if (options.pings > 0) {
      Object.assign(options, { pings: options.pings - 1, refuses: 1 });
      sendRequest({ method: 'ping' }, EmptyResultSchema).catch(() => {});
      while (options.refuses > 0) await new Promise((resolve) => setTimeout(resolve, 10));
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    return { content: [{ type: 'text', text: `${authInfo.extra.sub} ${authInfo.scopes.join(' ')}` }] };
  });
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  await server.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
app.all('/mcp', auth, (_, response) => response.status(405).end());

provider.listen(Number(asPort), '127.0.0.1', () => app.listen(Number(mcpPort), '127.0.0.1'));
