module jokesapp

go 1.22
