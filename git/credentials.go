package git

// Helper is the program that the clone of a triggered build asks for credentials, where a step has it.
const Helper = "/builder/git-credential-google"

// CredentialConfig has git ask Helper for credentials of the platform's repositories.
const CredentialConfig = `[credential "https://source.developers.google.com"]
	helper = ` + Helper + `
`

// HelperScript is Helper: it answers git's question for credentials with a token of the build's account, by what the
// image has to ask the metadata server with (https://git-scm.com/docs/gitcredentials#_custom_helpers).
const HelperScript = `#!/bin/sh
test "$1" = get || exit 0
url=http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token
flavor='Metadata-Flavor: Google'
answer=$(curl -sf --noproxy '*' -H "$flavor" "$url" 2>/dev/null ||
	wget -qO- --no-proxy --header="$flavor" "$url" 2>/dev/null ||
	python3 -c 'import sys, urllib.request as u
print(u.build_opener(u.ProxyHandler({})).open(u.Request(sys.argv[1], headers={"Metadata-Flavor": "Google"})).read().decode())' "$url")
token=$(printf '%s' "$answer" | sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p')
test -n "$token" || exit 1
printf 'username=git\npassword=%s\n' "$token"
`
