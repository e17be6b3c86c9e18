package buildpack

import (
	"regexp"
	"strings"

	"giggle/fault"
)

// packageManager is how one of Node.js's package managers is used.
type packageManager struct {
	name       string
	prefix     string // of its commands, for one that the builder has not got and npm fetches
	install    string // all dependencies
	production string // those that the program runs with, where nothing is built
	prune      string // what only the build needed
	vendored   string // instead, for node_modules that the source brings; "" where that can't be
	clean      string // removes what the source has of node_modules, which may be of another machine
	before     []string
	after      []string
	env        []string
}

// The versions that are taken where package.json names none.
const (
	yarnVersion = "1.22.22"
	pnpmVersion = "9.8.0"
)

// managerVersion is a version that a source may ask for.
var managerVersion = regexp.MustCompile(`^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$`)

// nodeManager says which package manager a source is for: by its lock file, as Google's buildpacks do, and by
// packageManager in package.json, which says the version.
func nodeManager(src string, m manifest) (packageManager, error) {
	wanted, version, _ := strings.Cut(m.PackageManager, "@")
	version, _, _ = strings.Cut(version, "+") // a hash may follow
	if version != "" && !managerVersion.MatchString(version) {
		return packageManager{}, fault.New(fault.InvalidArgument,
			"packageManager in package.json is %.60q; NAME@MAJOR.MINOR.PATCH is expected.", m.PackageManager)
	}
	of := func(name, def string) string {
		if wanted == name && version != "" {
			return version
		}
		return def
	}
	locked := has(src, "package-lock.json") || has(src, "npm-shrinkwrap.json")
	switch {
	case locked:
		return npmManager(true), nil
	case has(src, "pnpm-lock.yaml"):
		return pnpmManager(of("pnpm", pnpmVersion), true), nil
	case has(src, "yarn.lock"):
		return yarnManager(src, of("yarn", yarnVersion)), nil
	case has(src, "bun.lockb") || has(src, "bun.lock"):
		return packageManager{}, fault.New(fault.Unimplemented,
			"The source has a lock file of Bun's, which is not implemented. Make a package-lock.json with "+
				"`npm install --package-lock-only`, or write a Dockerfile.")
	case wanted == "pnpm":
		return pnpmManager(of("pnpm", pnpmVersion), false), nil
	case wanted == "yarn":
		return yarnManager(src, of("yarn", yarnVersion)), nil
	}
	return npmManager(false), nil
}

func npmManager(locked bool) packageManager {
	install := "npm install"
	if locked {
		install = "npm ci"
	}
	return packageManager{
		name:       "npm",
		install:    install,
		production: install + " --omit=dev",
		prune:      "npm prune --omit=dev",
		vendored:   "npm rebuild",
		clean:      "rm -rf node_modules",
	}
}

// fetched is a prefix by which npm runs a program of a package, which it fetches when it is not in its cache.
func fetched(of string) string { return "npm exec --yes --package=" + of + " -- " }

func pnpmManager(version string, locked bool) packageManager {
	install := "pnpm install"
	if locked {
		install += " --frozen-lockfile"
	}
	return packageManager{
		name:       "pnpm",
		prefix:     fetched("pnpm@" + version),
		install:    install,
		production: install + " --prod",
		prune:      "pnpm prune --prod",
		// Else it would fetch the version that package.json names by itself, and link into a cache that the image has
		// not got.
		env: []string{"npm_config_store_dir=/cache/npm/pnpm", "npm_config_package_import_method=copy",
			"npm_config_manage_package_manager_versions=false"},
	}
}

// yarnLocks is where yarn's own lock files say that packages are; the registry of builds stands for it.
const yarnLocks = "https://registry.yarnpkg.com/"

func yarnManager(src, version string) packageManager {
	if !strings.HasPrefix(version, "1.") || has(src, ".yarnrc.yml") {
		if strings.HasPrefix(version, "1.") {
			version = "4.5.0"
		}
		return packageManager{
			name:       "yarn",
			prefix:     fetched("@yarnpkg/cli-dist@" + version),
			install:    "yarn install",
			production: "yarn workspaces focus --production --all",
			prune:      "yarn workspaces focus --production --all",
			env: []string{"YARN_NPM_REGISTRY_SERVER=http://169.254.169.254/npm", "YARN_UNSAFE_HTTP_WHITELIST=169.254.169.254",
				"YARN_GLOBAL_FOLDER=/cache/npm/berry", "YARN_NODE_LINKER=node-modules", "YARN_ENABLE_TELEMETRY=0",
				"YARN_ENABLE_IMMUTABLE_INSTALLS=true", "YARN_IGNORE_PATH=1"},
		}
	}
	const install = "yarn install --non-interactive --no-progress"
	p := packageManager{
		name:    "yarn",
		prefix:  fetched("yarn@" + version),
		install: install,
		env:     []string{"YARN_CACHE_FOLDER=/cache/npm/yarn"},
	}
	if has(src, "yarn.lock") {
		// Its lock file names the registry in every line, and yarn goes there whatever it is told.
		p.before = []string{"cp yarn.lock /tmp/yarn.lock",
			"sed -i 's#" + yarnLocks + "#http://169.254.169.254/npm/#' yarn.lock"}
		p.after = []string{"cp /tmp/yarn.lock yarn.lock"}
		p.install += " --frozen-lockfile"
	}
	p.production = p.install + " --production"
	p.prune = p.install + " --production --ignore-scripts --prefer-offline"
	return p
}
