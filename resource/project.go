package resource

// Project is a project by both its names.
type Project struct {
	ID     string // "my-project": 6 to 30 characters
	Number string // 12 digits
}

// String returns the full name, with the id, as policies know it.
func (p Project) String() string { return "projects/" + p.ID }

// FindProject returns the project with an id or a number, or NotFound.
type FindProject func(ref string) (Project, error)

// Location reads the name of a location and names its project by id. It fails with InvalidArgument, or with NotFound
// where there is no such project.
func (find FindProject) Location(name string) (Location, Project, error) {
	in, err := ParseLocation(name)
	if err != nil {
		return in, Project{}, err
	}
	p, err := find(in.Project)
	in.Project = p.ID
	return in, p, err
}

// Child reads the name of a resource in a location and names its project by id. Errors are those of Location.
func (find FindProject) Child(collection, name string) (Child, Project, error) {
	n, err := ParseChild(collection, name)
	if err != nil {
		return n, Project{}, err
	}
	p, err := find(n.Project)
	n.Project = p.ID
	return n, p, err
}

// Global reads the name of a resource right below a project and names the project by id. Errors are those of Location.
func (find FindProject) Global(collection, name string) (Global, Project, error) {
	n, err := ParseGlobal(collection, name)
	if err != nil {
		return n, Project{}, err
	}
	p, err := find(n.Project)
	n.Project = p.ID
	return n, p, err
}

// Project reads "projects/PROJECT". Errors are those of Location.
func (find FindProject) Project(name string) (Project, error) {
	ref, err := ParseProject(name)
	if err != nil {
		return Project{}, err
	}
	return find(ref)
}
