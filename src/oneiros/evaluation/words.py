"""Words for the questions about letters: common ones of five letters and more."""

_WORDS = """
accommodation address adventure afternoon against airplane alphabet although analysis animal
answer apartment apple appointment architecture argument arrangement attention attitude autumn
balloon banana basketball bathroom beautiful beginning believe between bicycle birthday blanket
bookkeeper bottle breakfast bridge brother building business butterfly calendar camera campaign
candle capital carpenter carriage castle category celebrate century certificate challenge
cheese chicken chocolate cinnamon circle classroom clothing coffee colleague college committee
community company comparison computer conference connection conscience conversation corridor
cottage country courage cousin creature cucumber culture curiosity customer daughter december
decision definition delicious department description desert dessert dictionary difference
difficult dinner dinosaur direction disappear discovery distance doctor document dolphin
economy education eighteen electricity elephant embarrass emergency energy engine environment
equipment evening evidence example excellent exercise existence experience experiment factory
family february finger fisherman flower football foreign forest fortune fountain freedom friend
furniture garden generation gentleman geography giraffe government grammar grandmother
grasshopper guarantee guitar happiness harbour headache heaven helicopter history holiday
honest hospital hundred hurricane imagination immediately importance independence industry
information insect instrument insurance intelligence interest island january jealous jewellery
journey judgement kangaroo kettle keyboard kingdom kitchen knowledge laboratory ladder language
laughter lawyer leather lemonade letter library lightning literature loneliness machine
magazine management marriage mathematics meadow measure medicine memory message millennium
minister mirror mississippi mistake moment monkey morning mosquito mother mountain museum
mushroom music mystery narrow nation nature necessary needle neighbour newspaper nightmare
nineteen notebook november number occasion ocean october office opinion opportunity orange
orchestra organization parallel parliament passenger peaceful pencil pepper performance
permission personality philosophy photograph physics picture pineapple planet pleasure police
pollution population possession potato president pressure prisoner privilege problem professor
programme pronunciation psychology pumpkin question rabbit railway rainbow receive recommend
refrigerator relationship religion remember republic restaurant rhythm river satellite saturday
scarecrow science scissors secretary sentence separate september shadow shoulder signature
silence sister skeleton society soldier spaghetti spider squirrel station statistics strawberry
strength student succeed success suggestion suitcase summer sunflower surgeon surprise sweater
swimming symphony teacher telephone television temperature territory theatre thousand thunder
ticket tomato tomorrow tortoise tradition traffic treasure triangle trouble turtle umbrella
university vacation vacuum vegetable vehicle village violin visitor vocabulary volcano
volunteer waterfall weather wednesday weekend whisper whistle wilderness window winter wisdom
wonderful worker yesterday yellow
"""

WORDS = tuple(_WORDS.split())
