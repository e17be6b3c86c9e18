package local

import (
	"giggle/engine"
	"giggle/logging"
	"giggle/resource"
)

// Log keeps what containers write, and what the platform says about them: a logging.Log. It must not block.
type Log interface {
	Append(e logging.Entry)
}

// log returns where the lines of an instance go.
func (b *Backend) log(rev resource.Revision, id string) func(engine.Line) {
	if b.Log == nil {
		return func(engine.Line) {}
	}
	about := logging.Revision(rev)
	labels := map[string]string{logging.InstanceLabel: id}
	return func(l engine.Line) {
		e := logging.Entry{Project: rev.Service.Project, Time: l.Time, Resource: about, Labels: labels}
		switch l.Stream {
		case engine.Stdout:
			e.Log = logging.Stdout
		case engine.Stderr:
			e.Log = logging.Stderr
		default: // the platform's own word
			e.Log = logging.System
			switch l.Stream {
			case engine.PlatformErrors:
				e.Severity = logging.Error
			case engine.PlatformWarnings:
				e.Severity = logging.Warning
			}
			b.Log.Append(logging.Plain(e, l.Text))
			return
		}
		b.Log.Append(logging.Line(e, l.Text))
	}
}
