package steps

import (
	"context"
	"os"
	"path/filepath"

	"giggle/builds"
	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
)

// dockerImage is the image of docker steps: the CLI, which finds the platform's own Docker API at its socket.
const dockerImage = "gcr.io/cloud-builders/docker"

// Where the CLI is in the image, and where it is mounted below the wrapper.
const (
	dockerCLI = "/usr/bin/docker"
	realCLI   = "/usr/libexec/docker/cli"
)

// wrapper is docker in a docker step. The platform builds with BuildKit, whatever DOCKER_BUILDKIT says; so the CLI is
// to send the whole context, and what it would leave away then is done here or refused by name.
const wrapper = `#!/bin/sh
cli=` + realCLI + `
export DOCKER_BUILDKIT=0
refuse() {
	echo "docker: $*" >&2
	exit 125
}
# secret SPEC adds one, from a file or a variable, to those that the build is sent (secrets, or keys of SSH agents).
secret() {
	id= src= env=
	fields=$(printf '%s' "$1" | tr , '\n')
	while read -r f; do
		case "$f" in
		id=*) id=${f#id=} ;;
		src=* | source=*) src=${f#*=} ;;
		env=*) env=${f#env=} ;;
		type=file | type=env) ;;
		*) refuse "--secret $1: \"$f\" is none of id, src and env." ;;
		esac
	done <<-END
		$fields
	END
	case "$id" in "" | *[!A-Za-z0-9_.-]*) refuse "--secret $1 needs an id of letters, digits, '_', '.' and '-'." ;; esac
	if [ -z "$src$env" ]; then
		if printenv "$id" >/dev/null; then env=$id; else src=$id; fi
	fi
	if [ -n "$env" ]; then
		printenv "$env" >/dev/null || refuse "--secret $1: there is no variable $env."
		secrets=${secrets:+$secrets,}$id=$(printf '%s' "$(printenv "$env")" | base64 -w 0)
		return
	fi
	[ -f "$src" ] && [ -r "$src" ] || refuse "--secret $1: there is no file $src."
	secrets=${secrets:+$secrets,}$id=$(base64 -w 0 <"$src")
}
# key SPEC adds the private key that an SSH agent is to have: ID=FILE.
key() {
	case "$1" in
	*=*,*) refuse "--ssh $1: an agent has one key here." ;;
	*=*) [ -f "${1#*=}" ] || refuse "--ssh $1: ${1#*=} is no file with a private key; an agent's socket can't be given." ;;
	*) refuse "--ssh $1: no agent runs here. Name a file with a private key: --ssh $1=FILE." ;;
	esac
	case "${1%%=*}" in *[!A-Za-z0-9_.-]*) refuse "--ssh $1 needs an id of letters, digits, '_', '.' and '-'." ;; esac
	keys=${keys:+$keys,}${1%%=*}=$(base64 -w 0 <"${1#*=}")
}
case "$1 $2" in
buildx\ *) refuse "buildx is not in this builder: use 'docker build', which builds with BuildKit here." ;;
compose\ *) refuse "compose is not in this builder: run the containers by 'docker run', or as steps of their own." ;;
"build "* | "image build") ;;
*) exec $cli "$@" ;;
esac
output= skip= secrets= keys= n=$#
for a; do
	if [ "$skip" = output ]; then output=$a; skip=; continue; fi
	if [ "$skip" = secret ]; then secret "$a"; skip=; continue; fi
	if [ "$skip" = key ]; then key "$a"; skip=; continue; fi
	if [ "$skip" = value ]; then skip=; set -- "$@" "$a"; continue; fi
	case "$a" in
	-o | --output) skip=output; continue ;;
	--output=*) output=${a#--output=}; continue ;;
	-o?*) output=${a#-o}; continue ;;
	--secret) skip=secret; continue ;;
	--secret=*) secret "${a#--secret=}"; continue ;;
	--ssh) skip=key; continue ;;
	--ssh=*) key "${a#--ssh=}"; continue ;;
	--build-arg | --label | --tag | -t | --file | -f | --target | --add-host | --cache-from | --network | --platform | \
		--progress | --iidfile | --shm-size | --ulimit | --memory | -m | --cpu-quota | --cpu-period | --cpu-shares | -c | \
		--cpuset-cpus | --cpuset-mems | --memory-swap | --cgroup-parent | --isolation | --security-opt) skip=value ;;
	esac
	set -- "$@" "$a"
done
shift "$n"
if [ -n "$secrets$keys" ]; then # the CLI sends them as headers; arguments are for all to see
	config=$(mktemp -d)
	printf '{"HttpHeaders":{"X-Giggle-Secrets":"%s","X-Giggle-Keys":"%s"}}' "$secrets" "$keys" >"$config/config.json"
	trap 'rm -rf "$config"' EXIT
	cli="$cli --config $config"
fi
if [ -z "$output" ]; then
	[ -n "$secrets$keys" ] || exec $cli "$@"
	$cli "$@"
	exit
fi
case "$output" in
*type=local*) output=$(printf '%s' "$output" | tr , '\n' | sed -n 's/^dest=//p') ;;
*type=* | -) refuse "build in a build step can't have --output $output: only a directory." ;;
esac
[ -n "$output" ] || refuse "--output needs a directory."
id=$(mktemp) && $cli "$@" --iidfile "$id" && mkdir -p "$output" && made=$($cli create "$(cat "$id")" none) &&
	$cli cp "$made:/." "$output"
status=$?
[ -z "$made" ] || $cli rm "$made" >/dev/null
rm -f "$id"
exit $status
`

// AddDocker adds the image of docker steps to the builders: the docker CLI, which finds its build's socket.
func AddDocker(
	to map[string]func(context.Context, builds.Build) (OwnImage, error),
	mirrored func(name string) (oci.Image, error),
) {
	to[dockerImage] = func(context.Context, builds.Build) (OwnImage, error) {
		img, err := mirrored(dockerImage + ":latest")
		if fault.Is(err, fault.NotFound) {
			return OwnImage{}, fault.New(fault.FailedPrecondition,
				"The image with the docker CLI is not on this machine. Run `make images`, which makes it.")
		}
		if err != nil {
			return OwnImage{}, err
		}
		own := OwnImage{Image: img}
		// The wrapper goes over the CLI, which is found in a layer of the image, and mounted beside it.
		for _, l := range img.Layers {
			cli := filepath.Join(l, dockerCLI)
			if st, err := os.Lstat(cli); err == nil && st.Mode().IsRegular() {
				own.Mounts = []engine.Mount{{Source: cli, Target: realCLI, ReadOnly: true}}
				own.Files = []engine.File{{Path: dockerCLI, Data: []byte(wrapper), Mode: 0o555}}
			}
		}
		return own, nil
	}
}
