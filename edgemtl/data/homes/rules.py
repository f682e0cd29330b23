"""What a catalogue's model is: a readable table from category, name and tags to a class and a role.

A line holds a regular expression, a class and a role, between bars. It is matched against "category/name (tags)" in
lower case; the first line that matches counts. The role says where a model may stand (see `recipes`); "-" leaves it
out. Classes of things that NYU's authors did not name themselves follow the usual mapping of their 894 names to 40.
"""

from __future__ import annotations

import re
from functools import lru_cache

from edgemtl.data.homes.classes import INDEX
from edgemtl.errors import ConfigError

TABLE = r"""
^vehicles/(bike|tricycle|stroller)                          | otherprop      | big
^vehicles/(skateboard|scooter \(bicycle)                    | otherprop      | toy
^(vehicles|staircases)/                                     | otherprop      | -
^characters/(male|female|boy|girl|holding) ?.*human         | person         | person
^characters/(cat|dog|rabbit|bulldog|siamese cat) \(         | otherprop      | pet
^characters/                                                | otherprop      | -
^doors and windows/(elevator|garage|screen door|window shutter|turn window)   | door | -
^doors and windows/.*window                                 | window         | window
^doors and windows/                                         | door           | door
^exterior/(chair|teck chair|cafe chair|rattan armchair|folding chair)         | chair | chair
^exterior/(rattan sofa)                                     | sofa           | sofa
^exterior/(cafe table|rattan table)                         | table          | side
^exterior/(bench|concrete bench|painted bench)              | otherfurniture | bench
^exterior/(flower box|plant box)                            | otherprop      | plant
^exterior/(motorbike)                                       | otherprop      | toy
^exterior/(spray bottle)                                    | otherprop      | small kitchen
^exterior/(residential trashcan)                            | otherprop      | bin
^exterior/                                                  | otherprop      | -
^bathroom/shower curtain                                    | shower curtain | shower curtain
^bathroom/(shower stall|shower door)                        | otherstructure | shower
^bathroom/shower head                                       | otherprop      | -
^bathroom/(toilets unit)                                    | toilet         | toilet
^bathroom/(bidet)                                           | otherfurniture | bidet
^bathroom/urinal                                            | toilet         | -
^bathroom/(vanity|double vanity)                            | cabinet        | basin
^bathroom/.*(washbasin|lavatory)                            | sink           | basin
^bathroom/(bath|corner bathtub|island bath) \(              | bathtub        | bathtub
^bathroom/bathmat                                           | floor mat      | mat
^bathroom/(towel rack)                                      | towel          | towel wall
^bathroom/towel \(blend                                     | towel          | towel wall
^bathroom/towel                                             | towel          | small bath
^bathroom/radiator                                          | otherfurniture | radiator wall
^bathroom/(clothes basket|potty|basin|toilet brush)         | otherprop      | bin
^bathroom/toilet paper                                      | otherprop      | -
^bathroom/                                                  | otherprop      | small bath
^bedroom/bedside table                                      | night stand    | nightstand
^bedroom/(baby bed|crib)                                    | bed            | crib
^bedroom/(convertible sofa|day bed)                         | sofa           | sofa
^bedroom/(opened convertible|bed |bunk bed|iron bed|child bed|captain|hospital bed|mezzanine|futon) ?  | bed | bed
^bedroom/(bed) \(                                           | bed            | bed
^bedroom/(air mattress|sleeping bag)                        | otherprop      | -
^bedroom/(wardrobe|cupboard)                                | cabinet        | wardrobe
^bedroom/(chest)                                            | dresser        | dresser
^bedroom/(dressing table|changing table)                    | dresser        | dresser
^bedroom/shelves                                            | shelves        | bookcase
^bedroom/clothes rack                                       | clothes        | rack
^bedroom/hanging clothes                                    | clothes        | -
^bedroom/(briefcase|handbag)                                | bag            | bag
^bedroom/(folded clothes|suit|dress|short|trousers|jacket|skirt|socket)  ?\( ?| clothes        | clothes
^bedroom/(slippers|bootie|sneakers|woman shoes|mocassin)    | otherprop      | shoes
^bedroom/(cap|hat|helmet|glove) \(                          | clothes        | small bed
^bedroom/(rocking horse|doll house)                         | otherprop      | toy
^bedroom/(ring) \(                                          | otherprop      | -
^bedroom/                                                   | otherprop      | small bed
^kitchen/.*(refrigerator|fridge|freezer)                    | refrigerator   | fridge
^kitchen/(washing machine|clothes washing|dryer)            | otherfurniture | washer
^kitchen/(double oven|oven|large stove|propane stove) \(    | otherstructure | stove
^kitchen/(high cabinet)                                     | cabinet        | wardrobe
^kitchen/(sink cabinet|sink) \(                             | sink           | sink cabinet
^kitchen/.*(corner cabinet)                                 | cabinet        | -
^kitchen/.*(upper|glass door).*cabinet                      | cabinet        | upper
^kitchen/.*(lower|drawers).*cabinet                         | cabinet        | lower
^kitchen/glass door cabinet                                 | cabinet        | upper
^kitchen/(island)                                           | counter        | island
^kitchen/(range hood|hood)                                  | otherstructure | hood
^kitchen/(stool \(blend swap, chair|bar chair|stool \(chair|baby high chair)   | chair | stool
^kitchen/stool                                              | otherprop      | stool
^kitchen/(bullet trash can)                                 | otherprop      | bin
^kitchen/(broom|shopping basket)                            | otherprop      | broom
^kitchen/shovel                                             | otherprop      | -
^kitchen/(cooktop|induction cooker|stove)                   | otherstructure | hob
^kitchen/towel                                              | towel          | -
^kitchen/(paper towel)                                      | paper          | small kitchen
^kitchen/(kitchen tools)                                    | otherprop      | -
^kitchen/(fork|knife|spoon) \(                              | otherprop      | small dining
^kitchen/(plate|oval plate|coffee cup|coffee mug|glass|cup|sugar|teapot|creamer|wine|beer) | otherprop | small dining
^kitchen/(apples|bowl|birthday|hamburger|sushi|tray|bread|salt|steak|french|roasted|cocktail) | otherprop | small dining
^kitchen/                                                   | otherprop      | small kitchen
^lights/(street|classic lamppost|park light|outdoor lamp|porch|japanese lantern|camping|flashlight)   | lamp | -
^lights/(fluorescent|track|wall)                            | lamp           | wall lamp
^lights/(pendant|hanging|chandelier)                        | lamp           | pendant
^lights/ceiling lamp                                        | lamp           | ceiling lamp
^lights/candle                                              | otherprop      | small living
^lights/                                                    | lamp           | lamp
^living room/(bookcase|full bookcase)                       | bookshelf      | bookcase
^living room/(shelves|vertical shelves)                     | shelves        | bookcase
^living room/(box) \(                                       | cabinet        | sideboard
^living room/(contemporary living room)                     | bookshelf      | bookcase
^living room/(television cabinet|tv stand)                  | otherfurniture | tv stand
^living room/(dresser)                                      | dresser        | dresser
^living room/.*(corner sofa|couch.*corner)                  | sofa           | corner sofa
^living room/.*(sofa|couch|futon)                           | sofa           | sofa
^living room/(armchair ottoman|puff)                        | chair          | armchair
^living room/.*armchair                                     | chair          | armchair
^living room/(children|child) chair                         | chair          | small chair
^living room/(piano bench|bench|stool)                      | otherfurniture | bench
^living room/bar stool                                      | chair          | stool
^living room/.*chair                                        | chair          | chair
^living room/(coffee table)                                 | table          | coffee
^living room/(bar table|children table|table \(blend swap\)) ?$ | table      | side
^living room/.*table                                        | table          | table
^living room/(tv|tv 16:9|wall flat tv) \(                   | television     | tv
^living room/(grand piano)                                  | otherfurniture | piano
^living room/(upright piano)                                | otherfurniture | sideboard
^living room/keyboard                                       | otherprop      | small desk
^living room/fireplace                                      | otherstructure | fireplace
^living room/.*(rug|carpet)                                 | floor mat      | mat
^living room/(electric guitar)                              | otherprop      | broom
^living room/(tv remote|dvd|playstation|joystick|video projector|wireless|aquarium|deer) | otherprop | small living
^living room/(christmas tree|yucca|ficus|decorative plant|indoor plant|spathi|plant) | otherprop | plant
^living room/                                               | otherprop      | small living
^miscellaneous/(curtain)                                    | curtain        | -
^miscellaneous/(window blind)                               | blinds         | -
^miscellaneous/(wall hanger|clothes hanger|wire|number|cctv|surveil|smoke|ceiling|emergency) | otherprop | -
^miscellaneous/.*(plug|socket|switch|railing|chimney|fence|container|mower|shovel|cone|pallet) | otherprop | -
^miscellaneous/(bill|keys|extinguisher|intercom)            | otherprop      | -
^miscellaneous/(electric water heater|gaz water heater|air conditioning)    | otherprop | wall high
^miscellaneous/(cuckoo clock|dart game)                     | otherprop      | wall thing
^miscellaneous/(radiator|furnace)                           | otherfurniture | radiator
^miscellaneous/(pool table|football|table tennis \(|flipper|indoor bike|tread|abdominal|fitness) | otherfurniture | gym
^miscellaneous/(table tennis bat|tennis racket)             | otherprop      | small living
^miscellaneous/(workbench)                                  | desk           | desk
^miscellaneous/(box \(|crate|barrel|cardboard|open cardboard|trunck|gift) | box | box
^miscellaneous/(backpack|suitcase)                          | bag            | bag
^miscellaneous/(basketball|soccer)                          | otherprop      | toy
^miscellaneous/(book|newspaper)                             | books          | book
^miscellaneous/(tatami|doormat)                             | floor mat      | mat
^miscellaneous/(screen) \(                                  | otherfurniture | -
^miscellaneous/(clothes horse)                              | clothes        | rack
^miscellaneous/(step ladder|small step|wheelchair|punching) | otherprop      | big
^miscellaneous/(umbrella|wood logs|recycling)               | otherprop      | bin
^miscellaneous/(saw|drill|hammer|screwdriver|grinder|cutting|tape|number)   | otherprop | small desk
^miscellaneous/(frame)                                      | picture        | small living
^miscellaneous/(vase)                                       | otherprop      | small living
^miscellaneous/                                             | otherprop      | small living
^office/(bookcase)                                          | bookshelf      | bookcase
^office/(box) \(                                            | cabinet        | wardrobe
^office/(armchair|chair|class seat)                         | chair          | desk chair
^office/[^(]*(desk|wooden)                                  | desk           | desk
^office/technical table                                     | desk           | -
^office/white board                                         | whiteboard     | whiteboard stand
^office/filing cabinet                                      | cabinet        | filing
^office/safe                                                | otherprop      | filing
^office/(water cooler)                                      | otherprop      | big
^office/(dustbin)                                           | otherprop      | bin
^office/(letter tray)                                       | otherprop      | small desk
^office/                                                    | otherprop      | small desk
"""


@lru_cache(maxsize=1)
def rows() -> list[tuple[re.Pattern[str], int, str]]:
    """The table as (expression, class index, role). Raises ConfigError for a line that cannot be read."""
    out = []
    for line in TABLE.strip().splitlines():
        pattern, name, role = (part.strip() for part in line.rsplit("|", 2))
        if name not in INDEX:
            raise ConfigError(f"the rules for models name a class {name!r}; the classes are those of homes/classes.py")
        out.append((re.compile(pattern), INDEX[name], role))
    return out


def classify(category: str, name: str, tags: str) -> tuple[int, str]:
    """Class index and role of a model; a model that no line knows is of class otherprop and left out ("-")."""
    text = f"{category}/{name} ({tags})".lower()
    for pattern, cls, role in rows():
        if pattern.search(text):
            return cls, role
    return INDEX["otherprop"], "-"
