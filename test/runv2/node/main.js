// Makes the calls that applications make with Google's Node.js client of Cloud Run, over gRPC and over REST, and fails
// where an answer is not what the library's users get from Google. As a service it makes them for each request.
'use strict';
const assert = require('node:assert/strict');
const {ServicesClient, RevisionsClient} = require('@google-cloud/run').v2;

const location = 'europe-north1';

// A service that answers with a word, from an image of the mirror.
const wanted = word => ({
  labels: {team: 'node'},
  annotations: {'example.com/why': 'a test'},
  ingress: 'INGRESS_TRAFFIC_ALL',
  template: {
    timeout: {seconds: 30},
    maxInstanceRequestConcurrency: 7,
    scaling: {minInstanceCount: 0, maxInstanceCount: 2},
    containers: [
      {
        image: 'node:20',
        command: ['node', '-e'],
        args: ["require('http').createServer((q, s) => s.end(process.env.WORD)).listen(process.env.PORT)"],
        env: [{name: 'WORD', value: word}],
        resources: {limits: {cpu: '1', memory: '512Mi'}, cpuIdle: true},
        startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3},
      },
    ],
  },
});

async function fails(call, code, words) {
  try {
    await call();
  } catch (e) {
    assert.equal(e.code, code, e.stack);
    assert.match(e.message, words);
    return e;
  }
  assert.fail(`no error ${code}`);
}

async function all(project, id, options) {
  const services = new ServicesClient(options);
  const revisions = new RevisionsClient(options);
  const parent = services.locationPath(project, location);
  const name = services.servicePath(project, location, id);

  // Make it, and wait for the operation.
  const [making] = await services.createService({parent, serviceId: id, service: wanted('one')});
  assert.match(making.name, /\/operations\//);
  const [made, metadata] = await making.promise();
  assert.equal(metadata.name, name);
  assert.equal(made.name, name);
  assert.ok([4, 'CONDITION_SUCCEEDED'].includes(made.terminalCondition.state)); // what is in an operation has numbers over gRPC
  assert.equal(made.template.containers[0].env[0].value, 'one');
  assert.ok(!made.reconciling && made.uri.startsWith('https://'), made.uri);
  const again = await services.checkCreateServiceProgress(making.name);
  assert.ok(again.done);
  assert.equal(again.result.name, name);

  // Read it.
  const [have] = await services.getService({name});
  assert.deepEqual(have.labels, {team: 'node'});
  assert.deepEqual(have.annotations, {'example.com/why': 'a test'});
  assert.equal(have.ingress, 'INGRESS_TRAFFIC_ALL');
  assert.equal(Number(have.template.timeout.seconds), 30);
  assert.equal(have.template.maxInstanceRequestConcurrency, 7);
  const [listed] = await services.listServices({parent});
  assert.ok(listed.some(s => s.name === name));
  const each = [];
  for await (const s of services.listServicesAsync({parent, pageSize: 1})) each.push(s.name);
  assert.ok(each.includes(name));

  // Change it: what the mask does not name stays.
  have.template.containers[0].env[0].value = 'two';
  have.labels = {};
  const [changing] = await services.updateService({service: have, updateMask: {paths: ['template']}});
  const [changed] = await changing.promise();
  assert.equal(changed.template.containers[0].env[0].value, 'two');
  assert.deepEqual(changed.labels, {team: 'node'});
  assert.notEqual(changed.latestReadyRevision, made.latestReadyRevision);
  await fails(() => services.updateService({service: have}), 10, /Conflict/); // its etag is of before

  // Its revisions.
  const [two] = await revisions.listRevisions({parent: name});
  assert.deepEqual(two.map(r => r.name), [changed.latestReadyRevision, made.latestReadyRevision]);
  const [first] = await revisions.getRevision({name: made.latestReadyRevision});
  assert.equal(first.containers[0].env[0].value, 'one');
  const [removing] = await revisions.deleteRevision({name: first.name});
  const [removed] = await removing.promise();
  assert.equal(removed.name, first.name);
  await fails(() => revisions.getRevision({name: first.name}), 5, /not found/);
  await fails(() => revisions.deleteRevision({name: changed.latestReadyRevision}), 9, /can't be deleted/);

  // Who may call it.
  const role = 'roles/run.invoker';
  const [none] = await services.getIamPolicy({resource: name});
  assert.deepEqual(none.bindings ?? [], []);
  const [policy] = await services.setIamPolicy({resource: name, policy: {etag: none.etag, bindings: [{role, members: ['allUsers']}]}});
  assert.deepEqual(policy.bindings.map(b => [b.role, b.members]), [[role, ['allUsers']]]);
  const permissions = ['run.routes.invoke', 'run.services.delete'];
  const [held] = await services.testIamPermissions({resource: name, permissions});
  assert.deepEqual(held.permissions, permissions);
  const answer = await fetch(changed.uri);
  assert.equal(await answer.text(), 'two');

  // Errors, and what they say besides.
  await fails(() => services.getService({name: `${name}-none`}), 5, /was not found/);
  const bad = wanted('three');
  bad.template.timeout.seconds = 5000;
  const invalid = await fails(() => services.createService({parent, serviceId: `${id}-bad`, service: bad}), 3, /template\.timeout/);
  assert.ok(JSON.stringify(invalid.statusDetails).includes('template.timeout'), JSON.stringify(invalid.statusDetails));
  const vpc = wanted('three');
  vpc.template.vpcAccess = {connector: 'c'};
  await fails(() => services.createService({parent, serviceId: `${id}-bad`, service: vpc}), 12, /template\.vpcAccess\.connector/);
  const exits = wanted('three');
  Object.assign(exits.template.containers[0], {command: ['sh', '-c'], args: ['echo no database; exit 3']});
  const [failing] = await services.createService({parent, serviceId: `${id}-fails`, service: exits});
  await fails(() => failing.promise(), 9, /exit/);

  // Away with both.
  for (const gone of [name, `${name}-fails`]) {
    const [deleting] = await services.deleteService({name: gone});
    const [deleted] = await deleting.promise();
    assert.equal(deleted.name, gone);
  }
  await fails(() => services.getService({name}), 5, /was not found/);
  await Promise.all([services.close(), revisions.close()]);
}

async function main(project, prefix, say) {
  for (const [kind, options] of [['gRPC', {}], ['REST', {fallback: true}]]) {
    await all(project, `${prefix}-${kind.toLowerCase()}`, options);
    say(`${kind} ok\n`);
  }
}

if (process.env.K_SERVICE) {
  require('node:http').createServer((req, res) => {
    main(process.env.PROJECT, 'inside', s => res.write(s)).then(() => res.end(), e => res.end(`${e.stack}\n`));
  }).listen(process.env.PORT);
} else {
  main(process.argv[2], 'outside', s => process.stdout.write(s)).catch(e => {
    console.error(e);
    process.exit(1);
  });
}
