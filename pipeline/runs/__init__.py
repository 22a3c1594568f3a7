"""One execution of a job: binding -> plan -> distribution -> worker -> execution."""
