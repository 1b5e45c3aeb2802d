// Prints a line for each object of standard input that its operator's schema refuses; argument: node_modules.
const modules = process.argv[2];
const folders = {
  'monitoring.coreos.com': 'prometheus-operator',
  'external-secrets.io': 'external-secrets',
  'gateway.networking.k8s.io': 'gateway-api',
};
let wrong = 0;
for (const each of JSON.parse(require('fs').readFileSync(0, 'utf8'))) {
  const [group, version] = each.apiVersion.split('/');
  const kind = require(`${modules}/@kubernetes-models/${folders[group]}/${group}/${version}/${each.kind}`);
  const model = new kind[each.kind](each);
  try {
    model.validate();
  } catch (error) {
    wrong += 1;
    console.log(`${each.kind}/${each.metadata.name}: ${error.message}`);
  }
}
process.exit(wrong ? 1 : 0);
