module greeting

go 1.25
