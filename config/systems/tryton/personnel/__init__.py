"""A module for Tryton: what this government keeps of posts and employees beyond what Tryton itself does.

Whoever uses Tryton for personnel adds such a module of their own. It runs inside Tryton's process and environment only;
the bus never imports it. It computes nothing, so a mistake in it shows when the database is built.
"""

from trytond.model import ModelSQL, ModelView, fields
from trytond.pool import Pool, PoolMeta


def register():
    """Called by Tryton when it loads the module."""
    Pool.register(Post, Employee, module="personnel", type_="model")


class Post(ModelSQL, ModelView):
    """One line of the establishment register."""

    __name__ = "personnel.post"
    number = fields.Integer("Number", required=True)
    title = fields.Char("Title", required=True)
    grade = fields.Char("Grade", required=True)
    ministry = fields.Char("Ministry", required=True)
    department = fields.Char("Department", required=True)
    established = fields.Integer("Established", required=True)
    employees = fields.One2Many("company.employee", "post", "Employees")


class Employee(metaclass=PoolMeta):
    """The employee's party has code (personnel number), identifiers (taxpayer number) and addresses already."""

    __name__ = "company.employee"
    national_id = fields.Char("Number in the civil registry")
    family_name = fields.Char("Family name")
    given_names = fields.Char("Given names")
    birth_date = fields.Date("Birth date")
    post = fields.Many2One("personnel.post", "Post")
    salary = fields.Numeric("Monthly salary", digits=(16, 2))
    salary_account = fields.Char("Account for the salary")
    health_notes = fields.Text("Notes of the medical service")
