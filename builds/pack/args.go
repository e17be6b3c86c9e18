package pack

import (
	"strconv"
	"strings"

	"giggle/fault"
)

// DefaultBuilder is the builder where none is named: Google's, as gcloud names it.
const DefaultBuilder = "gcr.io/buildpacks/builder:latest"

// Limits of what the arguments may say.
const (
	maxVariables = 1000
	maxVariable  = 64 << 10 // bytes of one
	maxTags      = 100
)

// options are the arguments of pack build.
type options struct {
	image      string
	tags       []string
	builder    string // "" for the default
	runImage   string // "" for the builder's
	path       string // "" for the working directory
	process    string // that the image starts by default; "" for what the buildpacks say
	level      string // of the lifecycle's log
	buildpacks []string
	env        map[string]string
	publish    bool
	clearCache bool
}

// environment is what arguments mean beside their own text.
type environment struct {
	lookup func(name string) string                   // a variable of the step's environment
	read   func(file string) (text string, err error) // a file of the working directory
}

// aliases are the short names of flags.
var aliases = map[string]string{"B": "builder", "p": "path", "e": "env", "b": "buildpack", "t": "tag",
	"D": "default-process", "v": "verbose", "q": "quiet"}

// switches are the flags without a value. Those that change nothing here: a builder has no more rights when it is
// trusted than any step, and the log has no colours.
var switches = map[string]func(o *options, on bool){
	"publish":       func(o *options, on bool) { o.publish = on },
	"clear-cache":   func(o *options, on bool) { o.clearCache = on },
	"trust-builder": func(*options, bool) {},
	"no-color":      func(*options, bool) {},
	"verbose": func(o *options, on bool) {
		if on {
			o.level = "debug"
		}
	},
	"quiet": func(o *options, on bool) {
		if on {
			o.level = "warn"
		}
	},
}

// values are the flags with one.
var values = map[string]func(o *options, v string, c environment) error{
	"builder":         func(o *options, v string, _ environment) error { o.builder = v; return nil },
	"run-image":       func(o *options, v string, _ environment) error { o.runImage = v; return nil },
	"path":            func(o *options, v string, _ environment) error { o.path = v; return nil },
	"default-process": func(o *options, v string, _ environment) error { o.process = v; return nil },
	"buildpack": func(o *options, v string, _ environment) error {
		o.buildpacks = append(o.buildpacks, strings.Split(v, ",")...)
		return nil
	},
	"tag": func(o *options, v string, _ environment) error {
		if o.tags = append(o.tags, strings.Split(v, ",")...); len(o.tags) > maxTags {
			return refuse("%d tags are too many; %d are the most.", len(o.tags), maxTags)
		}
		return nil
	},
	"env": func(o *options, v string, c environment) error { return o.variable(v, c) },
	"env-file": func(o *options, v string, c environment) error {
		text, err := c.read(v)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if err := o.variable(line, c); err != nil {
				return err
			}
		}
		return nil
	},
	"network": func(_ *options, v string, _ environment) error {
		switch v {
		case "", "default", "bridge", "cloudbuild":
			return nil
		}
		return refuse("--network=%.100q is not implemented: every build step has the same network.", v)
	},
}

func refuse(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, "pack build: "+format, args...)
}

// variable adds NAME=VALUE, or NAME with the value that it has in the step's environment.
func (o *options) variable(v string, c environment) error {
	name, value, ok := strings.Cut(v, "=")
	if !ok {
		value = c.lookup(name)
	}
	if err := checkVariable(name, value); err != nil {
		return err
	}
	if o.env[name] = value; len(o.env) > maxVariables {
		return refuse("there are more than %d variables.", maxVariables)
	}
	return nil
}

// checkVariable refuses what can't be a file of /platform/env. The value may be a secret and is in no message.
func checkVariable(name, value string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00\n") {
		return refuse("%.100q is not the name of a variable.", name)
	}
	if len(value) > maxVariable {
		return refuse("the variable %s is longer than %d bytes.", name, maxVariable)
	}
	return nil
}

// parse reads the arguments of pack build as pack's own parser does: flags anywhere, --flag=value or --flag value, -f
// value, -f=value or -fvalue.
func parse(args []string, c environment) (options, error) {
	o := options{level: "info", env: map[string]string{}}
	var names []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			names = append(names, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			names = append(names, arg)
			continue
		}
		flag, value, given := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !strings.HasPrefix(arg, "--") {
			flag = aliases[arg[1:2]]
			value, given = arg[2:], len(arg) > 2
			value = strings.TrimPrefix(value, "=")
		}
		if set, ok := switches[flag]; ok {
			on := true
			if given {
				var err error
				if on, err = strconv.ParseBool(value); err != nil {
					return o, refuse("%.100q is neither true nor false: --%s.", value, flag)
				}
			}
			set(&o, on)
			continue
		}
		set, ok := values[flag]
		if !ok {
			return o, refuse("the flag %.100q is not implemented.", strings.SplitN(arg, "=", 2)[0])
		}
		if !given {
			if len(args) == 0 {
				return o, refuse("the flag --%s needs a value.", flag)
			}
			value, args = args[0], args[1:]
		}
		if err := set(&o, value, c); err != nil {
			return o, err
		}
	}
	if len(names) != 1 || names[0] == "" {
		return o, refuse("one name of an image is needed, there are %d.", len(names))
	}
	o.image = names[0]
	return o, nil
}
